"""The importance weights of replayed responses that a prioritized buffer hands over."""

from __future__ import annotations

import torch

from rlkit.batch import REPLAY_WEIGHT, Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction
from rlkit.ops import over_tokens
from rlkit.registry import register


@register("correction", "replay_weight")
class ReplayWeight(Correction):
    """The weight of a replayed response is the one its buffer gave it; others weigh 1.

    A buffer that prefers some responses changes what the loss is a mean of. Its importance weights
    w = (N P)^-beta / max undo that in part, as in prioritized experience replay (arXiv:1511.05952).
    buffer=fresh_per gives them.
    """

    sources = ("1511.05952",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch as it is, and the weight [B, T]."""
        given = batch.extras.get(REPLAY_WEIGHT, torch.zeros_like(batch.reward))
        weight = torch.where(given > 0, given, 1.0).to(batch.advantage.dtype)
        return Corrected(batch=batch, weight=over_tokens(weight, torch.ones_like(batch.mask)))
