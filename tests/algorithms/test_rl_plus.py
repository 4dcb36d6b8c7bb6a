"""RL-PLUS by hand: the weight of a demonstrated token."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import value_and_grad
from tests.algorithms.rows import rows


@pytest.mark.parametrize(
    ("p", "q", "explore"), [(0.3, 0.2, 0.5), (0.9, 0.9, 1.0), (0.01, 0.5, 0.0)]
)
def test_a_demonstrated_token_weighs_the_mixture(p: float, q: float, explore: float) -> None:
    """2 p / (q + (q + 1) / 2) (1 - p)^explore A, whose gradient on log p is itself."""
    _, batch = rows([[0.0]], [[2.0]])
    logp = torch.tensor([[math.log(p)]], dtype=torch.float64)
    batch = replace(
        batch,
        expert=torch.tensor([True]),
        prox_logp=torch.tensor([[math.log(q)]], dtype=torch.float64),
        behavior_logp=torch.full((1, 1), math.nan, dtype=torch.float64),
    )
    loss = build("loss", "rl_plus", explore=explore)
    assert loss.needs == {"prox"}
    expected = -2 * 2 * p / (q + (q + 1) / 2) * (1 - p) ** explore
    value, gradient = value_and_grad(loss, logp, batch)
    assert float(value) == pytest.approx(expected) and float(gradient) == pytest.approx(expected)


def test_own_tokens_have_no_clip() -> None:
    ratio = torch.tensor([[0.1, 5.0]], dtype=torch.float64)
    logp, batch = rows(ratio.log(), [[1.0]])
    gradient = value_and_grad(build("loss", "rl_plus", aggregation="token-sum"), logp, batch)[1]
    assert (-gradient[0]).tolist() == pytest.approx([0.1, 5.0])


def test_a_token_likelier_than_one_by_rounding_gives_no_nan() -> None:
    """Its 1 - p would be negative, and have no root."""
    _, batch = rows([[0.0]], [[2.0]])
    batch = replace(batch, expert=torch.tensor([True]))
    logp = torch.full((1, 1), 1e-12, dtype=torch.float64)
    value, gradient = value_and_grad(build("loss", "rl_plus"), logp, batch)
    assert float(value) == 0 and float(gradient) == 0


def test_the_logged_ratio_is_1_on_demonstrations() -> None:
    """Own ratio 2, and a demonstration that the policy finds 3 times as likely as before."""
    logp, batch = rows(torch.tensor([[2.0], [3.0]], dtype=torch.float64).log(), [[1.0], [1.0]])
    batch = replace(batch, expert=torch.tensor([False, True]))
    found = loss_value(build("loss", "rl_plus"), logp, batch)[1]
    assert found["ratio_mean"] == pytest.approx(1.5) and found["ratio_max"] == pytest.approx(2)
