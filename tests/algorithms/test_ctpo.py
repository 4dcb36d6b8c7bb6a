"""CTPO by hand: the cumulative ratio and its growing window."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from algorithms.ctpo import positions
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import value_and_grad
from tests.algorithms.one_group import PROX, responses

NONE = math.nan
ROW = [0.1, -0.05, NONE, 0.2, -0.3]
"""Log-ratios; cumulative 0.1, 0.05, -, 0.25, -0.05 at positions 1, 2, -, 3, 4."""


@pytest.mark.parametrize(
    ("advantage", "fields", "kept"),
    [
        (1.0, {"clip_high": 0.2}, [0.1, 0.05, NONE, 0.25, -0.05]),  # 0.2 sqrt(3) = 0.346
        (1.0, {"clip_high": 0.12, "power": 0.0}, [0.1, 0.05, NONE, None, -0.05]),
        (1.0, {"clip_high": 0.08}, [None, 0.05, NONE, None, -0.05]),  # window 0.08, ..., 0.139
        (1.0, {"clip_high": 0.08, "power": 1.0}, [None, 0.05, NONE, None, -0.05]),  # third: 0.24
        (1.0, {"clip_high": 0.09, "power": 1.0}, [None, 0.05, NONE, 0.25, -0.05]),  # third: 0.27
        (-1.0, {"clip_low": 0.02, "dual_clip": None}, [0.1, 0.05, NONE, 0.25, None]),
        (-1.0, {"clip_low": 0.03, "dual_clip": 0.08}, [None, 0.05, NONE, None, -0.05]),
        (1.0, {"mean": True, "clip_high": 0.2}, [0.1, 0.025, NONE, 0.25 / 3, -0.0125]),
    ],
)
def test_ctpo_clips_the_product_of_the_prefix(
    advantage: float, fields: dict[str, Any], kept: list[float | None]
) -> None:
    """A token's gradient weighs exp(its cumulative log-ratio), or 0 where the window cuts."""
    logp, batch = responses([ROW], [advantage], to=PROX)
    loss = build("loss", "ctpo", aggregation="token-sum", **fields)
    gradient = -advantage * value_and_grad(loss, logp, batch)[1][0]
    weights = [0.0 if k is None or math.isnan(k) else math.exp(k) for k in kept]
    assert gradient.tolist() == pytest.approx(weights)
    cut = sum(k is None for k in kept) / 4
    assert loss_value(loss, logp, batch)[1]["clip_fraction"] == pytest.approx(cut)


def test_one_token_with_a_fixed_window_is_ppo_with_a_window_in_log_space() -> None:
    logp, batch = responses([[0.3], [-0.3], [0.05]], [1.0, -1.0, 1.0], to=PROX)
    mine = build("loss", "ctpo", clip_low=0.1, clip_high=0.2, dual_clip=None, power=0.0)
    ppo = build("loss", "ppo", clip_low=1 - math.exp(-0.1), clip_high=math.exp(0.2) - 1)
    for found, expected in zip(
        value_and_grad(mine, logp, batch), value_and_grad(ppo, logp, batch), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_a_long_drift_does_not_overflow() -> None:
    """A thousand tokens at log-ratio 1 sum to 1,000: exp is cut at 10, without gradient beyond."""
    logp, batch = responses([[1.0] * 1000], [-1.0], to=PROX)
    loss = build("loss", "ctpo", dual_clip=None)
    value, gradient = value_and_grad(loss, logp, replace(batch))
    assert value.isfinite() and gradient[0, 9:].isfinite().all()
    assert gradient[0, 500:].eq(0).all() and gradient[0, 8] > 0


def test_a_masked_start_has_the_position_of_the_first_token_and_gives_no_nan() -> None:
    """0 would have a power -1/2 and a mean that are not finite."""
    mask = torch.tensor([[False, True, False, True]])
    assert positions(mask).tolist() == [[1, 1, 1, 2]]
    logp, batch = responses([[NONE, 0.1, -0.05]], [1.0], to=PROX)
    loss = build("loss", "ctpo", mean=True, power=-0.5, clip_high=0.5, aggregation="token-sum")
    gradient = value_and_grad(loss, logp, batch)[1][0]
    assert gradient.tolist() == pytest.approx([0, -math.exp(0.1), -math.exp(0.025)])


def test_the_logged_ratio_is_the_tokens_own() -> None:
    logp, batch = responses([ROW], [1.0], to=PROX)
    found = loss_value(build("loss", "ctpo"), logp, batch)[1]
    own = [math.exp(x) for x in ROW if not math.isnan(x)]
    assert found["ratio_mean"] == pytest.approx(sum(own) / 4)
    assert found["ratio_max"] == pytest.approx(math.exp(0.2))
