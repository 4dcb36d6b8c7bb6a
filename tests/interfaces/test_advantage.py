"""What every estimator brings: the plain value loss."""

from __future__ import annotations

import pytest
import torch

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.errors import UserError
from rlkit.interfaces import AdvantageEstimator
from rlkit.testing.advantages import examples


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


def test_a_mistake_in_an_estimator_of_ones_own_is_told_with_its_line() -> None:
    class Misspelled(AdvantageEstimator):
        def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
            return b.rewardd  # type: ignore[attr-defined]

    said = r"^advantage Misspelled raised AttributeError: .*'rewardd' \(.*/test_advantage.py:\d+\)"
    with pytest.raises(UserError, match=said):
        Misspelled().checked(examples())


class Returns(AdvantageEstimator):
    """Whatever it is told."""

    def __init__(self, out: object) -> None:
        super().__init__()
        self.out = out

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        return self.out  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("advantage", "returns", "said"),
    [
        ((8,), (8, 6), r"advantage that is of shape \[8\]: return a tensor of shape \[8, 6\], one"),
        ((8, 6), (8, 1), r"returns that is of shape \[8, 1\]"),
        ((8, 6), (8, 6), None),
    ],
)
def test_an_advantage_is_one_value_per_token(
    advantage: tuple[int, ...], returns: tuple[int, ...], said: str | None
) -> None:
    out = AdvantageOutput(advantage=torch.zeros(advantage), returns=torch.zeros(returns))
    if said is None:
        assert Returns(out).checked(examples()) is out
        return
    with pytest.raises(UserError, match=said):
        Returns(out).checked(examples())


def test_an_advantage_that_returns_something_else_is_told_what_to_return() -> None:
    for out, said in ((None, "None"), (torch.zeros(8, 6), "a Tensor")):
        with pytest.raises(UserError, match=f"Returns returned {said}: return AdvantageOutput"):
            Returns(out).checked(examples())
    listed = AdvantageOutput(advantage=[0.0], returns=torch.zeros(8, 6))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="advantage that is a list"):
        Returns(listed).checked(examples())
