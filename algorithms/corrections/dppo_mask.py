"""DPPO's trust region as a mask: bounds on probabilities, not on their ratio (arXiv:2602.04879)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from algorithms.dppo import Divergence, inside
from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction, PartConfig
from rlkit.registry import register

Delta = Annotated[float, Field(gt=0)]


class DPPOMaskConfig(PartConfig):
    """Settings of the trust region."""

    divergence: Divergence = "tv"
    """What is bounded: the difference of the probabilities, the KL divergence of the choice between
    this token and any other (which wants smaller deltas), or the absolute difference whatever the
    sign of the advantage ("ipo")."""
    delta_low: Delta = 0.2
    """Bound for tokens that are pushed down. 0.2 is prime-rl's for tv; the paper's numbers are
    unconfirmed."""
    delta_high: Delta = 0.2
    """Bound for tokens that are pushed up."""


@register("correction", "dppo_mask")
class DPPOMask(Correction[DPPOMaskConfig]):
    """Weight 0 where a token has already moved by delta in the direction of its advantage, else 1.

        A > 0: 0 where pi - behavior > delta_high;  A <= 0: 0 where behavior - pi > delta_low

    A ratio clip stops rare tokens, whose ratio is large even if the difference is tiny, and misses
    frequent ones (arXiv:2602.04879). Demonstrations have no behavior log-probs and stay.

    Public code: agrees with the masks of verl's dppo_tv and dppo_kl and of prime-rl's default loss.
    """

    sources = ("2602.04879",)
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch as it is, and the 0/1 weight [B, T]."""
        c = self.config
        known = batch.mask & ~batch.expert[:, None]
        logp, other = (torch.where(known, x, 0.0) for x in (policy.logp, batch.behavior_logp))
        kept = inside(
            logp,
            other,
            batch.advantage,
            divergence=c.divergence,
            delta_low=c.delta_low,
            delta_high=c.delta_high,
        )
        return Corrected(batch=batch, weight=(kept | ~known).to(logp.dtype))
