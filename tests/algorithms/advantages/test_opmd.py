"""The baselines of mirror descent by hand, and their limits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.algorithms.advantages.hand import LME, LME_HALF, REWARDS, estimate, one_a_row


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("opmd", {}, [0, -1, -1, 2]),
        ("opmd", {"baseline": "logavgexp"}, [1 - LME, -LME, -LME, 3 - LME]),
        (
            "opmd",
            {"baseline": "logavgexp", "tau": 0.5},
            [1 - LME_HALF, -LME_HALF, -LME_HALF, 3 - LME_HALF],
        ),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert out.returns[:, 1].tolist() == REWARDS


@pytest.mark.parametrize("name", ["opmd", "oapl"])
def test_the_soft_baseline_goes_from_the_best_reward_to_the_mean(name: str) -> None:
    """V* -> max as the temperature -> 0, -> mean as it -> infinity; no overflow at either end."""
    field = {"opmd": "tau", "oapl": "beta1"}[name]
    more: dict[str, Any] = {"baseline": "logavgexp"} if name == "opmd" else {}
    cold = one_a_row(estimate(name, REWARDS, [0] * 4, **{field: 1e-4}, **more))
    hot = one_a_row(estimate(name, REWARDS, [0] * 4, **{field: 1e6}, **more))
    assert cold == pytest.approx([-2, -3, -3, 0], abs=1e-3)
    assert hot == pytest.approx([0, -1, -1, 2], abs=1e-5)
