"""`loss_value` is the number training minimises."""

from __future__ import annotations

import pytest
import torch

from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.training.loss_value import loss_value
from tests.training.objectives import Sequence, Surrogate, gradient, make_batch


def test_norm_length_of_the_loss_wins_over_the_completion_length() -> None:
    logp, batch = make_batch()
    kind = "seq-mean-token-sum-norm"
    ten, _ = loss_value(Surrogate(LossConfig(aggregation=kind, norm_length=10)), logp, batch)
    default, _ = loss_value(Surrogate(LossConfig(aggregation=kind)), logp, batch)
    assert ten.item() == pytest.approx(default.item() * 512 / 10)


@pytest.mark.parametrize("cls", [Surrogate, Sequence])
def test_loss_value_is_what_training_minimises(cls: type[PolicyLoss]) -> None:
    logp, batch = make_batch()
    theta = logp.clone().requires_grad_()
    value, metrics = loss_value(cls(), theta, batch, max_completion_length=9)
    (expected,) = torch.autograd.grad(value, theta)
    found, total, _ = gradient(cls(), [[0, 1], [2, 3, 4, 5, 6]])
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert total == pytest.approx(value.item()) and metrics["loss"] == value.item()
