"""What every loss and correction brings."""

from __future__ import annotations

import pytest
import torch

from rlkit.batch import Corrected, LossBatch, LossOutput, PolicyTerms, Term
from rlkit.errors import UserError
from rlkit.interfaces import Correction, LossConfig, PolicyLoss
from rlkit.testing.losses import examples


class Own(PolicyLoss):
    """Only its base."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        raise AssertionError


def test_a_mistake_in_a_part_of_ones_own_is_told_with_its_line() -> None:
    """Another failure, such as memory that has run out, stays what it is."""

    class Misspelled(PolicyLoss):
        def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
            return batch.advantages  # type: ignore[attr-defined]

    class Late(Correction):
        def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
            return batch.extras["weight"]  # type: ignore[return-value]

    class Full(PolicyLoss):
        def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
            raise torch.OutOfMemoryError("none left")

    logp, batch = examples(())
    policy = PolicyTerms(logp=logp, entropy=logp)
    said = r"^loss Misspelled raised AttributeError: .*'advantages' \(.*/test_loss.py:\d+\)"
    with pytest.raises(UserError, match=said):
        Misspelled().checked(policy, batch)
    with pytest.raises(
        UserError, match=r"^correction Late raised KeyError: 'weight' \(.*test_loss"
    ):
        Late().checked(policy, batch)
    with pytest.raises(torch.OutOfMemoryError):
        Full().checked(policy, batch)


@pytest.mark.parametrize(("clamp", "largest"), [(2.0, 2.0), (None, 30.0)])
def test_the_ratio_is_clamped_as_the_config_says_and_1_where_masked(
    clamp: float | None, largest: float
) -> None:
    loss = Own(LossConfig(log_ratio_clamp=clamp))
    logp, other = torch.tensor([[30.0, 1.0, 9.0]]), torch.zeros(1, 3)
    mask = torch.tensor([[True, True, False]])
    expected = torch.tensor([[largest, 1.0, 0.0]]).exp()
    torch.testing.assert_close(loss.ratio(logp, other, mask), expected)


class Shaped(PolicyLoss):
    """One term of a given shape."""

    def __init__(self, value: list[int], mask: list[int]) -> None:
        super().__init__()
        self.term = Term(name="own", value=torch.zeros(value), mask=torch.ones(mask).bool())

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        return LossOutput(terms=[self.term])


@pytest.mark.parametrize(
    ("value", "mask", "right"),
    [
        ([8, 6], [8, 6], True),
        ([8], [8, 6], True),
        ([], [8, 6], False),
        ([1], [8, 6], False),
        ([8, 1], [8, 6], False),
        ([8], [8], False),
    ],
)
def test_a_term_has_a_value_per_token_or_per_response(
    value: list[int], mask: list[int], right: bool
) -> None:
    logp, batch = examples(frozenset())
    policy, loss = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp)), Shaped(value, mask)
    if right:
        assert loss.checked(policy, batch).terms == [loss.term]
        return
    with pytest.raises(UserError, match=r"loss Shaped: the term 'own' .* \[8, 6\] or .* \[8\]"):
        loss.checked(policy, batch)


def test_a_correction_changes_nothing_by_default() -> None:
    logp, batch = examples(frozenset())
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    correction = Correction()
    found = correction(policy, batch)
    assert found.batch is batch and found.weight.tolist() == torch.ones_like(logp).tolist()
    assert correction.terms(policy, batch) == ()


class Returns(Correction):
    """Whatever it is told."""

    def __init__(self, out: object) -> None:
        super().__init__()
        self.out = out

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        return self.out  # type: ignore[return-value]


def test_a_correction_that_returns_something_else_is_told_what_to_return() -> None:
    logp, batch = examples(frozenset())
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    right = Corrected(batch=batch, weight=torch.ones(8, 6))
    assert Returns(right).checked(policy, batch) is right
    for out, said in (
        (None, r"Returns returned None: return Corrected\(batch=batch, weight=...\)"),
        (torch.ones(8, 6), "Returns returned a Tensor: return Corrected"),
        (Corrected(batch=batch, weight=torch.ones(8)), r"a weight that is of shape \[8\]: return"),
        (Corrected(batch=batch, weight=0.5), "a weight that is a float"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UserError, match=said):
            Returns(out).checked(policy, batch)


@pytest.mark.parametrize(
    "settings", [{"norm_length": 0}, {"log_ratio_clamp": 0}, {"aggregation": "mean"}]
)
def test_settings_no_loss_can_have(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        LossConfig.model_validate(settings)


@pytest.mark.parametrize(("returned", "said"), [(None, "None"), (torch.zeros(8, 6), "a Tensor")])
def test_a_loss_that_returns_no_loss_output_is_told_what_to_return(
    returned: object, said: str
) -> None:
    class Plain(PolicyLoss):
        def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
            return returned  # type: ignore[return-value]

    logp, batch = examples(frozenset())
    with pytest.raises(UserError, match=rf"loss Plain returned {said}: return LossOutput\(terms="):
        Plain().checked(PolicyTerms(logp=logp, entropy=torch.zeros_like(logp)), batch)
