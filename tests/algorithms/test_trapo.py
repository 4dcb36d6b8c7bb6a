"""TRAPO by hand: the bounded gradient of a demonstrated token."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import value_and_grad
from tests.algorithms.rows import rows


@pytest.mark.parametrize(("floor", "weights"), [(0.1, [0.2, 1.0, 1.0]), (0.5, [0.04, 0.6, 1.0])])
def test_unlikely_demonstrated_tokens_lose_weight(floor: float, weights: list[float]) -> None:
    """Probabilities 0.02, 0.3, 0.7: the gradient on log pi is min(1, p / floor) A."""
    _, batch = rows([[0.0] * 3], [[2.0]])
    logp = torch.tensor([[0.02, 0.3, 0.7]], dtype=torch.float64).log()
    unknown = torch.full((1, 3), math.nan, dtype=torch.float64)
    batch = replace(batch, expert=torch.tensor([True]), prox_logp=unknown, behavior_logp=unknown)
    loss = build("loss", "trapo", floor=floor, aggregation="token-sum")
    gradient = value_and_grad(loss, logp, batch)[1]
    assert (-gradient[0] / 2).tolist() == pytest.approx(weights)


@pytest.mark.parametrize(("clip", "weights"), [(True, [0.5, 0]), (False, [0.5, 2])])
def test_own_tokens_may_be_clipped(clip: bool, weights: list[float]) -> None:
    logp, batch = rows(torch.tensor([[0.5, 2.0]]).double().log(), [[1.0]])
    loss = build("loss", "trapo", on_policy_clip=clip, aggregation="token-sum")
    assert (-value_and_grad(loss, logp, batch)[1][0]).tolist() == pytest.approx(weights)


def test_the_logged_ratio_is_1_on_demonstrations_and_no_clip_of_theirs_counts() -> None:
    """Own ratio 1.1, and a demonstration that the policy finds 3 times as likely as before."""
    logp, batch = rows(torch.tensor([[1.1], [3.0]], dtype=torch.float64).log(), [[1.0], [1.0]])
    batch = replace(batch, expert=torch.tensor([False, True]))
    found = loss_value(build("loss", "trapo"), logp, batch)[1]
    assert found["ratio_mean"] == pytest.approx(1.05) and found["clip_fraction"] == 0
