"""Trajectory balance by hand, and as the advantage it is equal to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.one_group import BEHAVIOR, REFERENCE, TWO, responses


def test_tba_by_hand() -> None:
    """S = -1 and 2, mean 0.5; beta 0.2: errors 0.2 (-1.5) - 1 = -1.3 and 0.2 (1.5) + 1 = 1.3."""
    logp, batch = responses(TWO, [1.0, -1.0], to=REFERENCE)
    value, gradient = value_and_grad(build("loss", "tba", beta=0.2), logp, batch)
    assert float(value) == pytest.approx(1.3**2 / 0.4)
    assert gradient.tolist() == [
        pytest.approx([-0.65, -0.65, 0]),
        pytest.approx([0.65, 0.65, 0.65]),
    ]


def test_the_mean_of_the_group_has_no_gradient() -> None:
    """Advantages that sum to 1 leave errors -1.3 and 0.3, whose sum a mean with gradient moves."""
    logp, batch = responses(TWO, [1.0, 0.0], to=REFERENCE)
    gradient = value_and_grad(build("loss", "tba", beta=0.2), logp, batch)[1]
    assert gradient.tolist() == [
        pytest.approx([-0.65, -0.65, 0]),
        pytest.approx([0.15, 0.15, 0.15]),
    ]


def test_each_token_may_weigh_its_ratio_to_the_policy_that_sampled() -> None:
    """Ratios 2, 10, - and 0.5, 4, 9 with none beyond 8: those tokens have no gradient."""
    logp, batch = responses(TWO, [1.0, -1.0], to=REFERENCE)
    ratio = torch.tensor([[2.0, 10, 1], [0.5, 4, 9]], dtype=torch.float64)
    batch = replace(batch, behavior_logp=logp - ratio.log())
    loss = build("loss", "tba", beta=0.2, ratio_max=8.0)
    assert loss.needs == {"anchor:base", "behavior"}
    gradient = value_and_grad(loss, logp, batch)[1]
    expected = [[-0.65 * 2, 0, 0], [0.65 * 0.5, 0.65 * 4, 0]]
    assert gradient.tolist() == [pytest.approx(row) for row in expected]


def test_its_gradient_is_reinforce_with_the_kl_in_the_advantage() -> None:
    """dL/dlog pi = -(A - beta (S - mean_group S)), which REINFORCE has with that advantage."""
    logp, batch = examples(REFERENCE | BEHAVIOR)
    beta = 0.3
    moved = torch.where(batch.mask, logp - batch.anchor_logp["base"], 0.0).sum(-1).view(2, 4)
    pull = (moved - moved.mean(-1, keepdim=True)).view(8, 1)
    shifted = replace(batch, advantage=batch.advantage - beta * pull)
    plain = build("loss", "reinforce", aggregation="seq-mean-token-sum")
    expected = value_and_grad(plain, logp, shifted)[1]
    found = value_and_grad(build("loss", "tba", beta=beta), logp, batch)[1]
    torch.testing.assert_close(found, expected)


def test_at_the_optimum_nothing_is_pushed() -> None:
    """If log(pi / ref) = (R - c) / beta for every response of a group, both sides balance."""
    logp, batch = responses([[5.0, 0.0], [-5.0, 0.0]], [1.0, -1.0], to=REFERENCE)
    value, gradient = value_and_grad(build("loss", "tba", beta=0.2), logp, batch)
    assert float(value) == pytest.approx(0, abs=1e-12) and gradient.abs().max() < 1e-12


def test_the_logged_ratio_is_to_the_reference() -> None:
    """Of the tokens of TWO: exp of 0.5, -1.5, 0.5, 0.5 and 1."""
    logp, batch = responses(TWO, [1.0, -1.0], to=REFERENCE)
    batch = replace(batch, behavior_logp=logp)
    own = [math.exp(x) for row in TWO for x in row if not math.isnan(x)]
    every: list[dict[str, Any]] = [{}, {"ratio_max": 8.0}]
    for fields in every:
        found = loss_value(build("loss", "tba", **fields), logp, batch)[1]
        assert found["ratio_mean"] == pytest.approx(sum(own) / 5)
