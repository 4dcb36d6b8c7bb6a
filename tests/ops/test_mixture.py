"""GePPO's optimal shares of the last policies, by hand and against a grid."""

from __future__ import annotations

import itertools
import math

import pytest

from rlkit.ops.mixture import TRUNCATION, flattest, mean_place, optimal_shares, steepest, tilted

SLOPE = math.sqrt(1 / 12)


@pytest.mark.parametrize(
    ("policies", "multiple", "kappa", "shares"),
    [
        (1, 1.0, 1.0, [1]),
        (4, 1.0, 0.5, [1, 0, 0, 0]),
        (3, 2.0, 1.0, [1 / 3] * 3),
        (2, 2.0, 0.5, [1 / 2] * 2),
        (20, 2.0, 1.0, [0.4, 0.3, 0.2, 0.1]),
        (20, 2.0, 0.0, [1 / 3 + SLOPE, 1 / 3, 1 / 3 - SLOPE]),
        (20, 2.0, 0.5, [1 / 3 + 0.6 * SLOPE, 1 / 3, 1 / 3 - 0.6 * SLOPE]),
    ],
)
def test_geppo_shares_by_hand(
    policies: int, multiple: float, kappa: float, shares: list[float]
) -> None:
    """B = 2. kappa 1: falling by 0.1, the mean place is 2. kappa 0: sum of squares 1/2. Between:
    tilt = (1 - kappa)/(2 kappa) (1/2 - 0.3)/(2 - 1.4226) = 0.1732, with the ranges of both ends.
    """
    found = optimal_shares(policies, multiple, kappa)
    assert found == pytest.approx(shares + [0.0] * (policies - len(shares)), abs=1e-12)


def test_geppo_shares_up_to_the_truncation_are_dropped() -> None:
    """B = 1.84: 1/3 + t, 1/3, 1/3 - t with t = 0.3241, whose last is 0.009."""
    tilt = math.sqrt((1 / 1.84 - 1 / 3) / 2)
    rest = 2 / 3 + tilt
    assert 1 / 3 - tilt < TRUNCATION
    found = optimal_shares(5, 1.84, 0.0)
    assert found == pytest.approx([(1 / 3 + tilt) / rest, (1 / 3) / rest, 0, 0, 0])


@pytest.mark.parametrize("kappa", [0.1, 0.4, 0.8])
@pytest.mark.parametrize(("policies", "multiple"), [(4, 2.0), (5, 2.5), (3, 1.6)])
def test_geppo_shares_are_the_best_of_all_feasible_ones(
    policies: int, multiple: float, kappa: float
) -> None:
    """Against every point of a grid on the simplex that meets both constraints."""
    steps = 30 if policies < 5 else 20
    flat = tilted(policies, flattest(policies, multiple))
    steep = tilted(policies, steepest(policies, multiple))
    spread = 1 / multiple - sum(x * x for x in flat)
    reach = multiple - mean_place(steep)

    def objective(nu: tuple[float, ...]) -> float:
        return kappa * sum(x * x for x in nu) / spread + (1 - kappa) * mean_place(nu) / reach

    def feasible(nu: tuple[float, ...], slack: float = 0.0) -> bool:
        squares = sum(x * x for x in nu)
        return mean_place(nu) <= multiple + slack and squares <= 1 / multiple + slack

    best = optimal_shares(policies, multiple, kappa)
    assert feasible(best, 1e-9) and sum(best) == pytest.approx(1)
    points = (
        (*(x / steps for x in head), 1 - sum(head) / steps)
        for head in itertools.product(range(steps + 1), repeat=policies - 1)
        if sum(head) <= steps
    )
    values = [objective(nu) for nu in points if feasible(nu)]
    assert len(values) > 50
    assert objective(best) <= min(values) + 1e-9
    assert objective(best) >= min(values) - 0.05 * abs(min(values))
