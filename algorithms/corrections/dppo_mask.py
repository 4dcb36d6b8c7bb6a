"""DPPO's trust region as a mask: bounds on probabilities, not on their ratio (arXiv:2602.04879)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction, PartConfig
from rlkit.registry import register

Delta = Annotated[float, Field(gt=0)]
EPS = 1e-8
"""verl's, beside the probabilities in the binary KL."""


def moved_too_far(logp: Tensor, behavior_logp: Tensor, c: DPPOMaskConfig) -> tuple[Tensor, Tensor]:
    """Whether a token's probability p has risen, or fallen, too far from q: two bool tensors.

    tv: p - q > delta_high, q - p > delta_low. kl: the KL from q to p of taking the token or not is
    above the bound, and p is on that side of q.
    """
    p, q = logp.clamp(max=0).exp(), behavior_logp.clamp(max=0).exp()
    if c.divergence == "tv":
        return p - q > c.delta_high, q - p > c.delta_low
    taken = q * (behavior_logp - logp)
    kl = taken + (1 - q) * ((1 - q + EPS) / (1 - p + EPS)).log()
    return (kl > c.delta_high) & (p > q), (kl > c.delta_low) & (p < q)


class DPPOMaskConfig(PartConfig):
    """Settings of the trust region."""

    divergence: Literal["tv", "kl"] = "tv"
    """What is bounded: the difference of the probabilities, or the KL divergence of the choice
    between this token and any other, which wants smaller deltas."""
    delta_low: Delta = 0.2
    """Bound for tokens that are pushed down. 0.2 is prime-rl's for tv; the paper's numbers are
    unconfirmed."""
    delta_high: Delta = 0.2
    """Bound for tokens that are pushed up."""


@register("correction", "dppo_mask")
class DPPOMask(Correction[DPPOMaskConfig]):
    """Weight 0 where a token has already moved by delta in the direction of its advantage, else 1.

        A > 0: 0 where pi - behavior > delta_high;  A <= 0: 0 where behavior - pi > delta_low

    A ratio clip stops rare tokens, whose ratio is large at a tiny difference, and lets frequent
    ones go (arXiv:2602.04879). Demonstrations have no behaviour log-probs and stay.

    Public code: agrees with the masks of verl's dppo_tv and dppo_kl and of prime-rl's default loss.
    """

    Config = DPPOMaskConfig
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch as it is, and the 0/1 weight [B, T]."""
        known = batch.mask & ~batch.expert[:, None]
        logp, other = (torch.where(known, x, 0.0) for x in (policy.logp, batch.behavior_logp))
        risen, fallen = moved_too_far(logp, other, self.config)
        out = torch.where(batch.advantage > 0, risen, fallen)
        return Corrected(batch=batch, weight=(~out).to(logp.dtype))
