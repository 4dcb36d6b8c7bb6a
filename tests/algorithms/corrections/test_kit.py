"""The contract kit catches corrections that break it, each with its sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from algorithms.corrections.tis import TIS
from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction
from rlkit.testing import check_part


class Attached(TIS):
    """The weight carries the policy's gradient."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        delta = torch.where(batch.mask, policy.logp - batch.behavior_logp, 0.0)
        return Corrected(batch=batch, weight=delta.exp())


class LateMask(TIS):
    """Garbage under the mask moves every weight."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        delta = batch.prox_logp - batch.behavior_logp
        return Corrected(batch=batch, weight=torch.ones_like(delta) * delta.mean().exp())


class Overflow(TIS):
    """A product that nothing bounds."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        delta = torch.where(batch.mask, batch.prox_logp - batch.behavior_logp, 0.0)
        total = delta.sum(-1, keepdim=True).exp()
        return Corrected(batch=batch, weight=total.expand_as(delta))


class Alone(Correction):
    """Compares the rows of a minibatch but says that each stands alone."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        total = torch.where(batch.mask, batch.advantage, 0.0).square().sum()
        return Corrected(batch=batch, weight=torch.ones_like(policy.logp) * total)


class Positional(Correction):
    """Drops the first row, whichever it is."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        mask = batch.mask.clone()
        mask[0] = False
        kept = replace(batch, mask=mask)
        return Corrected(batch=kept, weight=torch.ones_like(policy.logp))


class Silent(TIS):
    """Reads two policies and names one."""

    needs = frozenset({"prox"})


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (Attached, "detach it"),
        (LateMask, "mask before exp"),
        (Overflow, "not finite"),
        (Alone, 'set scope = "group" or "minibatch"'),
        (Positional, "order of the rows"),
        (Silent, "does not name 'behavior'"),
    ],
)
def test_a_broken_correction_is_told_what_is_wrong(part: type[Any], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_part("correction", part())
