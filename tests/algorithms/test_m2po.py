"""M2PO, its authors' code and AReaL's by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.m2po import clip_radius, smallest
from rlkit.batch import LossBatch
from rlkit.errors import UserError
from rlkit.interfaces import LossConfig
from rlkit.objective import loss_value
from rlkit.registry import build
from tests.algorithms.rows import double, near, outcome, rows


@pytest.mark.parametrize(
    ("squares", "threshold", "strict", "kept"),
    [
        ([0.01, 0.09, 0.04], 0.04, False, [1, 0, 1]),
        ([0.01, 0.02], 0.04, False, [1, 1]),
        ([0.75, 0.25], 0.5, False, [1, 1]),
        ([0.75, 0.25], 0.5, True, [0, 1]),
        ([1.5, 0.5, 1.5], 1.0, False, [0, 1, 0]),
        ([3.0, 2.0], 1.0, False, [0, 0]),
        ([3.0, 2.0], 1.0, True, [0, 1]),
        ([2.0], 1.0, True, [1]),
        ([], 1.0, False, []),
        ([], 1.0, True, []),
    ],
)
def test_the_largest_squares_leave_until_the_mean_of_the_rest_fits(
    squares: list[float], threshold: float, strict: bool, kept: list[int]
) -> None:
    """Equal ones leave together, so that the choice does not depend on the order of the rows."""
    assert smallest(double(squares), threshold, strict=strict).int().tolist() == kept


@pytest.mark.parametrize(
    ("budget", "radius"), [(0.1, 0), (0.25, 0), (0.4, 0.5), (0.6, 0.5**0.5), (0.95, None)]
)
def test_the_radius_is_the_last_own_root_below_the_budget(
    budget: float, radius: float | None
) -> None:
    """Squares 1/4, 1/2, 2 capped at the k-th sum to 3/4, 5/4 and 11/4."""
    found = clip_radius(double([2.0, 0.25, 0.5]), budget)
    assert found == (None if radius is None else pytest.approx(radius, rel=1e-12))
    assert clip_radius(double([]), budget) is None


TRUSTED = [[0.1, 0.3, -2.0], [-0.1, -0.9, 1.0]]
"""Log-ratios of a good and a bad response: the first two of each are in the trust region."""


def test_m2po_drops_the_far_trust_region_tokens_and_divides_by_all() -> None:
    """Squares 0.01, 0.09, 0.01 and 0.81: without the last, the mean is 0.037.

    The log-ratios of -2 and 1 push back to the policy that sampled them and stay.
    """
    logp, batch = rows(TRUSTED, [[1.0], [-1.0]])
    gradient, metrics = outcome("m2po", logp, batch)
    r = double(TRUSTED).exp()
    expected = [(-r[0] / 6).tolist(), [float(r[1, 0] / 6), 0.0, float(r[1, 2] / 6)]]
    assert gradient == near(expected)
    assert metrics["masked_tokens"] == pytest.approx(1 / 6)
    assert outcome("m2po", logp, batch, m2_threshold=1.0)[1]["masked_tokens"] == 0


def test_m2po_sees_the_whole_minibatch() -> None:
    """The bad response alone has the mean 0.41 and loses 0.81; beside 20 small ones it keeps it."""
    logp, batch = rows([TRUSTED[1], *[[-0.01, -0.01, -0.01]] * 20], -1.0)
    assert outcome("m2po", logp, batch)[1]["masked_tokens"] == 0
    index = torch.tensor([0])
    alone = outcome("m2po", logp[index], batch.rows(index))[1]
    assert alone["masked_tokens"] == pytest.approx(1 / 3)
    assert build("loss", "m2po").scope == "minibatch"


@pytest.mark.parametrize(
    ("fields", "low", "high", "cut"),
    [
        ({}, 0.3, 0.5, [[0, 0, 0], [0, 1, 0]]),
        (
            {"clip_low_min": 0.05, "clip_high_min": 0.05},
            1 - math.exp(-0.1),
            math.exp(0.1) - 1,
            None,
        ),
        ({"clip_low_min": 0.7, "clip_high_min": 0.2}, 0.7, 0.2, [[0, 1, 0], [0, 0, 0]]),
        ({"m2_threshold": 0.3}, 1.0, 1e5 - 1, [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_the_authors_code_clips_where_the_budget_is_met(
    fields: dict[str, Any], low: float, high: float, cut: Any
) -> None:
    """tau = 0.1: capped at 0.1 the squares have the mean 0.01, capped at 0.3 already 0.05.

    The bounds are widened to the minima; within the budget (mean 0.23) nothing is clipped. The
    tokens at tau itself keep their gradient.
    """
    logp, batch = rows(TRUSTED, [[1.0], [-1.0]])
    cut = [[0, 1, 0], [0, 1, 0]] if cut is None else cut
    gradient, metrics = outcome("m2po_authors_repo", logp, batch, **fields)
    assert metrics["clip_low"] == pytest.approx(low) and metrics["clip_high"] == pytest.approx(high)
    assert metrics["clip_fraction"] == pytest.approx(double(cut).mean().item())
    free = double(TRUSTED).exp() * double([[-1.0], [1.0]]) / 6
    assert gradient == near((free * (1 - double(cut))).tolist())


def test_the_value_of_a_clipped_token_is_at_the_bound() -> None:
    logp, batch = rows([[2.0]], 1.0)
    value, _ = loss_value(build("loss", "m2po_authors_repo"), logp, batch)
    assert value.item() == pytest.approx(-1.5)


@pytest.mark.parametrize(("log_ratio", "advantage"), [(-2.0, 0.5), (2.0, -0.5)])
def test_a_token_that_comes_back_is_not_clipped(log_ratio: float, advantage: float) -> None:
    logp, batch = rows([[log_ratio]], advantage)
    gradient, metrics = outcome("m2po_authors_repo", logp, batch)
    assert metrics["clip_fraction"] == 0
    assert gradient == near([[-math.exp(log_ratio) * advantage]])


def three_policies() -> tuple[Tensor, LossBatch]:
    """One response; prox / behavior has the log-ratios 0.1, -0.1, 0.9, pi / prox 0.1, 0.5, 0.1."""
    logp, batch = rows([[0.1, 0.5, 0.1]], 1.0)
    return logp, replace(batch, behavior_logp=batch.prox_logp - double([[0.1, -0.1, 0.9]]))


def test_areal_drops_what_moved_far_and_divides_by_what_stays() -> None:
    """Of the two tokens left, PPO's clip cuts the second at ratio e^0.5."""
    logp, batch = three_policies()
    gradient, metrics = outcome("m2po_areal", logp, batch)
    assert gradient == near([[-math.exp(0.1) / 2, 0, 0]])
    assert metrics["masked_tokens"] == pytest.approx(1 / 3)
    wide = outcome("m2po_areal", logp, batch, clip_high=1.0)[0]
    assert wide == near([[-math.exp(0.1) / 2, -math.exp(0.5) / 2, 0]])
    weighted = outcome("m2po_areal", logp, batch, behavior_weight=True)[0]
    assert weighted == near([[-math.exp(0.2) / 2, 0, 0]])
    every = outcome("m2po_areal", logp, batch, m2_threshold=1.0)[0]
    assert every == near([[-math.exp(0.1) / 3, 0, -math.exp(0.1) / 3]])


@pytest.mark.parametrize(("clip_low", "kept"), [(0.2, 0), (0.5, 1)])
def test_areal_clips_a_negative_advantage_from_below(clip_low: float, kept: float) -> None:
    logp, batch = rows([[-0.5]], -1.0)
    batch = replace(batch, behavior_logp=batch.prox_logp)
    gradient = outcome("m2po_areal", logp, batch, clip_low=clip_low)[0]
    assert gradient == near([[kept * math.exp(-0.5)]])


def test_areal_keeps_the_token_that_moved_least_however_far() -> None:
    logp, batch = three_policies()
    index, mask = torch.tensor([0]), double([[0, 0, 1]]).bool()
    metrics = outcome("m2po_areal", logp, replace(batch.rows(index), mask=mask))[1]
    assert metrics["masked_tokens"] == 0


@pytest.mark.parametrize("name", ["m2po", "m2po_authors_repo", "m2po_areal"])
def test_the_ratio_is_clamped(name: str) -> None:
    """Beyond the clamp the ratio stands still; what is dropped or cut does not change."""
    logp, batch = rows([[-2.0, 0.01]], 1.0)
    gradient, metrics = outcome(name, logp, batch, log_ratio_clamp=0.5)
    assert gradient == near([[0, -math.exp(0.01) / 2]])
    assert metrics["ratio_mean"] == pytest.approx((math.exp(-0.5) + math.exp(0.01)) / 2)


@pytest.mark.parametrize(
    ("name", "needs", "settings"),
    [
        ("m2po", {"behavior"}, set()),
        ("m2po_authors_repo", {"behavior"}, {"clip_low_min", "clip_high_min"}),
        ("m2po_areal", {"behavior", "prox"}, {"clip_low", "clip_high", "behavior_weight"}),
    ],
)
def test_each_m2po_reads_what_it_compares_and_has_its_own_settings_alone(
    name: str, needs: set[str], settings: set[str]
) -> None:
    loss = build("loss", name)
    assert loss.needs == needs and loss.config.m2_threshold == 0.04
    own = set(type(loss.config).model_fields) - set(LossConfig.model_fields)
    assert own == settings | {"m2_threshold"}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("m2po", {"m2_threshold": -0.1}),
        ("m2po_authors_repo", {"clip_low_min": 1.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("loss", name, **fields)
