"""Each check of a loss passes a sound one and catches one that is broken in its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.interfaces import PolicyLoss
from rlkit.ops import group_mean
from rlkit.testing import losses as kit
from rlkit.testing.losses import examples, finite, spoiled, value_and_grad


class Sound(PolicyLoss):
    """-ratio * advantage."""

    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        ratio = self.ratio(policy.logp, batch.behavior_logp, batch.mask)
        return of(-ratio * batch.advantage, batch)


def of(value: Tensor, batch: LossBatch, **metrics: Tensor) -> LossOutput:
    return LossOutput(terms=[Term(name="policy", value=value, mask=batch.mask)], metrics=metrics)


class Detached(Sound):
    """No gradient."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        return super().__call__(policy.detach(), batch)


class Deep(Sound):
    """A metric with a dimension too many."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        return of(super().__call__(policy, batch).terms[0].value, batch, own=policy.logp[..., None])


class Reduced(Sound):
    """A metric that is reduced already."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        return of(super().__call__(policy, batch).terms[0].value, batch, own=policy.logp.mean())


class LateMask(Sound):
    """The exponential is masked after the fact."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        ratio = (policy.logp - batch.behavior_logp).exp()
        return of(torch.where(batch.mask, -ratio * batch.advantage, 0.0), batch)


class Unclamped(Sound):
    """The square of an unclamped ratio."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        delta = torch.where(batch.mask, policy.logp - batch.behavior_logp, 0.0)
        return of(-(2 * delta).exp() * batch.advantage, batch)


class Dividing(Sound):
    """Divides by the tokens of the shortest response."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        value = super().__call__(policy, batch).terms[0].value
        return of(value / batch.mask.sum(-1).min(), batch)


class Standardized(Sound):
    """Divides by the spread of the rewards."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        spread = batch.reward.std()
        return of(super().__call__(policy, batch).terms[0].value / spread, batch)


class Centred(Sound):
    """Takes a group's mean over all its rows."""

    scope = "group"

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        ratio = self.ratio(policy.logp, batch.behavior_logp, batch.mask).mean(-1)
        return of((ratio - group_mean(ratio, batch.group)).square(), batch)


class Placed(Sound):
    """Weighs by the place in the batch."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        place = torch.arange(1, len(batch.mask) + 1)[:, None]
        return of(super().__call__(policy, batch).terms[0].value * place, batch)


class Wide(Sound):
    """Divides by the padded length."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        width = batch.mask.shape[1]
        return of(super().__call__(policy, batch).terms[0].value / width, batch)


class Whole(Sound):
    """Reads the whole minibatch and says that each row stands alone."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        delta = torch.where(batch.mask, policy.logp - batch.behavior_logp, 0.0).detach()
        return of(super().__call__(policy, batch).terms[0].value * (1 + delta.norm()), batch)


class Silent(Sound):
    """Reads the proximal policy without naming it."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        ratio = self.ratio(policy.logp, batch.prox_logp, batch.mask)
        return of(-ratio * batch.advantage, batch)


@pytest.mark.parametrize(
    ("check", "broken", "sentence"),
    [
        (kit.the_loss_pushes_the_policy, Detached, "no gradient"),
        (kit.the_loss_pushes_the_policy, Deep, "the metric 'own' is not"),
        (kit.the_loss_pushes_the_policy, Reduced, "the metric 'own' is not"),
        (kit.masked_positions_change_nothing, LateMask, "mask before exp"),
        (kit.extreme_ratios_stay_finite, Unclamped, r"\+-50"),
        (kit.empty_and_short_responses_are_harmless, Dividing, "no finite loss"),
        (kit.a_group_of_equal_rewards_is_harmless, Standardized, "equal rewards"),
        (kit.the_order_of_rows_does_not_matter, Placed, "the order of the rows"),
        (kit.padding_does_not_matter, Wide, "padding changes"),
        (kit.micro_batches_do_not_matter, Whole, "the split into micro-batches"),
        (kit.needs_names_everything_that_is_read, Silent, "does not name 'prox'"),
        (kit.responses_without_valid_tokens_are_not_there, Centred, "self.counted"),
    ],
)
def test_a_broken_loss_is_told_what_is_wrong(
    check: Callable[[Any], None], broken: type[Sound], sentence: str
) -> None:
    check(Sound())
    with pytest.raises(AssertionError, match=sentence):
        check(broken())


def test_the_examples_hold_what_goes_wrong() -> None:
    logp, batch = examples(frozenset({"behavior", "anchor:base"}))
    assert not batch.mask[0, 2] and batch.mask[0, 3], "a hole"
    assert batch.anchor_logp.keys() == {"base"} and (logp < 0).all()
    assert batch.advantage.sum(-1).abs().min() >= 0 and not batch.advantage[~batch.mask].any()
    again, _ = examples(frozenset())
    assert torch.equal(again, logp)
    assert not torch.equal(examples(frozenset(), seed=1)[0], logp)


def test_garbage_is_put_where_nothing_may_be_read() -> None:
    _, batch = examples(["anchor:base"])
    bad = spoiled(batch)
    for before, after in (
        (batch.behavior_logp, bad.behavior_logp),
        (batch.anchor_logp["base"], bad.anchor_logp["base"]),
        (batch.advantage, bad.advantage),
    ):
        assert torch.equal(before[batch.mask], after[batch.mask])
        assert (after[~batch.mask] == -kit.GARBAGE).all()


def test_the_gradient_is_that_of_the_loss() -> None:
    """token-mean: -ratio * advantage / tokens."""
    logp, batch = examples(["behavior"])
    value, gradient = value_and_grad(Sound(), logp, batch)
    ratio = (logp - batch.behavior_logp).exp()
    expected = torch.where(batch.mask, -ratio * batch.advantage, 0.0) / batch.mask.sum()
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(value, expected.sum())
    assert not value_and_grad(Detached(), logp, batch)[1].any()


def test_a_loss_that_is_not_finite_is_seen_in_its_value_or_its_gradient() -> None:
    good, bad = torch.tensor(1.0), torch.tensor(float("nan"))
    assert finite(good, good)
    assert not finite(bad, good) and not finite(good, bad)


def test_a_loss_that_returns_no_loss_output_is_seen() -> None:
    class Plain(Sound):
        def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Any:
            return policy.logp

    with pytest.raises(AssertionError, match="it returns a Tensor, not a LossOutput"):
        kit.the_loss_pushes_the_policy(Plain())
