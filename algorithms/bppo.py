"""Behavior proximal policy optimization, BPPO (arXiv:2302.11312).

PPO's clip alone keeps a policy near the one that made the data, so it can be trained offline if
good actions count more than bad ones:

    L = -min(r a, clip(r, 1 - clip_low, 1 + clip_high) a),   r = pi / prox
    a = omega A where A > 0, (1 - omega) A where A < 0

Public code: the authors' code (its equations were read there, not in the paper) multiplies the
clip width 0.25 by 0.96 at each of the first 200 updates. A loss knows no step: that annealing is a
scalar schedule on loss.clip_low and loss.clip_high. The code skips the weights at omega = 0.5; here
0.5 halves both signs alike. It moves prox only when the evaluation improves, and takes advantages
from a fitted Q-function; here they are those of the advantage part.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ppo import clipped_surrogate
from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import register


class BPPOConfig(LossConfig):
    """Settings of BPPO."""

    omega: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Weight of positive advantages; negative ones have 1 - omega."""
    clip_low: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Lower clip: 1 - clip_low."""
    clip_high: Annotated[float, Field(gt=0)] = 0.25
    """Upper clip: 1 + clip_high."""


def asymmetric(advantage: Tensor, omega: float) -> Tensor:
    """omega A where A > 0, else (1 - omega) A, [B, T]."""
    return torch.where(advantage > 0, omega * advantage, (1 - omega) * advantage)


@register("loss", "bppo")
class BPPO(PolicyLoss[BPPOConfig]):
    """PPO's clipped surrogate on pi / prox, with positive advantages weighing more."""

    sources = ("2302.11312",)
    needs = frozenset({"prox"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c = self.config
        ratio = self.ratio(policy.logp, batch.prox_logp, batch.mask)
        advantage = asymmetric(batch.advantage, c.omega)
        value, clipped = clipped_surrogate(ratio, advantage, 1 - c.clip_low, 1 + c.clip_high)
        return policy_output(value, batch.mask, ratio=ratio, clip_fraction=clipped)
