"""What every estimator brings: the plain value loss."""

from __future__ import annotations

import torch

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator


class Own(AdvantageEstimator):
    """Only its base."""

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        raise AssertionError


def test_the_value_loss_is_half_the_squared_error_and_never_clipped() -> None:
    values = torch.tensor([[1.0, 5.0]], requires_grad=True)
    loss, clipped = Own().value_loss(values, torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]))
    assert loss.tolist() == [[0.5, 4.5]] and clipped.tolist() == [[0, 0]]
    (gradient,) = torch.autograd.grad(loss.sum(), values)
    assert gradient.tolist() == [[1, 3]], "the error itself"
