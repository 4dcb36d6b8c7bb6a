"""What a correction must do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from rlkit.batch import PolicyTerms
from rlkit.interfaces import Correction
from rlkit.testing.base import require
from rlkit.testing.losses import ENTROPY, FAR, examples, spoiled


def the_weight_is_detached_and_blind_to_masked_positions(correction: Correction[Any]) -> None:
    """A finite weight [B, T] without gradient that garbage under the mask does not change."""
    logp, batch = examples(correction.needs)
    terms = PolicyTerms(logp=logp.requires_grad_(), entropy=torch.full_like(logp, ENTROPY))
    found = correction(terms, batch)
    require(found.weight.shape == batch.mask.shape, "the weight is not [B, T]")
    require(not found.weight.requires_grad, "the weight carries a gradient; detach it")
    require(not (found.batch.mask & ~batch.mask).any(), "the correction adds to the mask")
    again = correction(terms, spoiled(batch))
    same = torch.equal(again.batch.mask, found.batch.mask) and torch.allclose(
        again.weight[batch.mask], found.weight[batch.mask]
    )
    require(same, "values at masked positions change the correction; mask before exp")


def extreme_weights_stay_finite(correction: Correction[Any]) -> None:
    """prox / behavior of e^+-50 gives a finite weight."""
    logp, batch = examples(correction.needs)
    sign = torch.where(torch.arange(48).view(8, 6) % 2 == 0, 1.0, -1.0)
    far = replace(batch, prox_logp=batch.behavior_logp + FAR * sign)
    terms = PolicyTerms(logp=logp, entropy=torch.full_like(logp, ENTROPY))
    require(correction(terms, far).weight.isfinite().all(), "a weight is not finite")


CORRECTION = (
    the_weight_is_detached_and_blind_to_masked_positions,
    extreme_weights_stay_finite,
)
