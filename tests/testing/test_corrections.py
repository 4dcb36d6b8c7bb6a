"""Each check of a correction catches one that is broken in its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction
from rlkit.ops import masked_log_ratio
from rlkit.testing import corrections as kit
from rlkit.testing.losses import examples


class Sound(Correction):
    """Ratios cut at 2."""

    needs = frozenset({"behavior", "prox"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        delta = masked_log_ratio(batch.prox_logp, batch.behavior_logp, batch.mask, 20.0)
        return Corrected(batch=batch, weight=delta.exp().clamp(max=2.0))


class Attached(Sound):
    """The weight carries the policy's gradient."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        delta = masked_log_ratio(policy.logp, batch.behavior_logp, batch.mask, 20.0)
        return Corrected(batch=batch, weight=delta.exp())


class Late(Sound):
    """Reads what is masked."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        mean = (batch.prox_logp - batch.behavior_logp).mean(-1, keepdim=True).clamp(-1, 1)
        return Corrected(batch=batch, weight=mean.exp().expand(batch.mask.shape))


class Adding(Sound):
    """Puts tokens into the mask."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        grown = replace(batch, mask=torch.ones_like(batch.mask))
        return Corrected(batch=grown, weight=torch.ones_like(policy.logp))


class Unclamped(Sound):
    """A square in float32."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        delta = masked_log_ratio(batch.prox_logp, batch.behavior_logp, batch.mask)
        return Corrected(batch=batch, weight=(2 * delta.float()).exp())


class Dividing(Sound):
    """Divides by the tokens of a response."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        share = 1 / batch.mask.sum(-1, keepdim=True).double()
        return Corrected(batch=batch, weight=share.expand(batch.mask.shape))


class Placed(Sound):
    """Weighs by the place in the batch."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        place = torch.arange(1.0, len(batch.mask) + 1)[:, None]
        return Corrected(batch=batch, weight=place.expand(batch.mask.shape))


class Centred(Sound):
    """Reads the whole minibatch and says that each row stands alone."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        weight = super().__call__(policy, batch).weight
        return Corrected(batch=batch, weight=weight / weight[batch.mask].mean())


class Counting(Sound):
    """Weighs by the number of responses, those without a valid token included."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        out = super().__call__(policy, batch)
        return Corrected(batch=out.batch, weight=out.weight / len(batch.mask))


class Silent(Sound):
    """Reads both and names one."""

    needs = frozenset({"behavior"})


class Masking(Sound):
    """Tokens on which training and sampling disagree leave the mask."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        delta = masked_log_ratio(batch.prox_logp, batch.behavior_logp, batch.mask, 20.0)
        smaller = replace(batch, mask=batch.mask & (delta.abs() < 1))
        return Corrected(batch=smaller, weight=torch.ones_like(delta))


@pytest.mark.parametrize(
    ("check", "broken", "sentence"),
    [
        (kit.the_weight_is_detached_and_blind_to_masked_positions, Attached, "detach it"),
        (kit.the_weight_is_detached_and_blind_to_masked_positions, Adding, "adds to the mask"),
        (kit.the_weight_is_detached_and_blind_to_masked_positions, Late, "mask before exp"),
        (kit.extreme_weights_stay_finite, Unclamped, "a weight is not finite"),
        (kit.empty_responses_are_harmless, Dividing, "a weight is not finite"),
        (kit.the_order_of_rows_does_not_matter, Placed, "the order of the rows"),
        (kit.micro_batches_do_not_matter, Centred, "the split into micro-batches"),
        (kit.needs_names_everything_that_is_read, Silent, "does not name 'prox'"),
        (kit.a_mask_that_reads_prox_says_so, Masking, "set mask_reads_prox = True"),
        (kit.responses_without_valid_tokens_are_not_there, Counting, "without valid tokens"),
    ],
)
def test_a_broken_correction_is_told_what_is_wrong(
    check: Callable[[Any], None], broken: type[Sound], sentence: str
) -> None:
    check(Sound())
    with pytest.raises(AssertionError, match=sentence):
        check(broken())


def test_the_plain_loss_pushes_tokens_without_advantage_too() -> None:
    logp, batch = examples(frozenset())
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    (term,) = kit.Plain()(policy, kit.equal_group(batch)).terms
    assert torch.equal(term.value[:4], torch.where(batch.mask[:4], -0.5 * logp[:4], 0.0))


def test_a_weight_scales_the_gradient_of_the_loss() -> None:
    class Half(Correction):
        def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
            return Corrected(batch=batch, weight=torch.full_like(policy.logp, 0.5))

    logp, batch = examples(frozenset())
    rows = [torch.arange(8)]
    whole, half = (kit.through_the_loss(c, logp, batch, rows) for c in (Correction(), Half()))
    torch.testing.assert_close(half[0], 0.5 * whole[0])
    torch.testing.assert_close(half[1], 0.5 * whole[1])
    assert not half[2].any(), "no entropy in it"
