"""QRPO by hand: the quantile of the reward and its known partition function."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from algorithms.qrpo import log_partition, quantile_reward
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import value_and_grad
from tests.algorithms.one_group import REFERENCE, TWO, responses


def test_the_quantile_counts_equal_rewards_of_the_own_group() -> None:
    reward = torch.tensor([1.0, 0.0, 0.0, 5.0, 7.0], dtype=torch.float64)
    group = torch.tensor([0, 0, 0, 1, 1])
    assert quantile_reward(reward, group).tolist() == pytest.approx([1, 2 / 3, 2 / 3, 0.5, 1])


@pytest.mark.parametrize("beta", [0.02, 0.1])
def test_the_partition_function_is_that_of_a_uniform_reward(beta: float) -> None:
    """Z = integral of exp(u / beta) over [0, 1] = beta (exp(1/beta) - 1); the 1 is left out."""
    exact = math.log(beta) + 1 / beta + math.log1p(-math.exp(-1 / beta))
    assert log_partition(beta) == pytest.approx(exact, abs=5e-5)


def test_qrpo_by_hand() -> None:
    """Rewards 1 > 0: quantiles 1 and 1/2; beta 0.1: beta log Z = 0.1 log 0.1 + 1; S = -1 and 2."""
    logp, batch = responses(TWO, [0.0, 0.0], to=REFERENCE)
    batch = replace(batch, reward=torch.tensor([1.0, 0.0], dtype=torch.float64))
    value, gradient = value_and_grad(build("loss", "qrpo"), logp, batch)
    known = 0.1 * math.log(0.1) + 1
    errors = [1 - known + 0.1, 0.5 - known - 0.2]
    assert float(value) == pytest.approx((errors[0] ** 2 + errors[1] ** 2) / 2)
    assert gradient[0].tolist() == pytest.approx([-0.1 * errors[0]] * 2 + [0])
    assert gradient[1].tolist() == pytest.approx([-0.1 * errors[1]] * 3)


def test_the_logged_ratio_is_to_the_reference() -> None:
    """Of the tokens of TWO: exp of 0.5, -1.5, 0.5, 0.5 and 1."""
    logp, batch = responses(TWO, [0.0, 0.0], to=REFERENCE)
    batch = replace(batch, reward=torch.tensor([1.0, 0.0], dtype=torch.float64))
    own = [math.exp(x) for row in TWO for x in row if not math.isnan(x)]
    found = loss_value(build("loss", "qrpo"), logp, batch)[1]
    assert found["ratio_mean"] == pytest.approx(sum(own) / 5)
