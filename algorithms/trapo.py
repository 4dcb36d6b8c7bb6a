"""TRAPO: demonstrations imitated within a trust region (arXiv:2512.17636).

The gradient of a demonstrated token's likelihood grows without bound as the policy finds it less
likely. TRAPO bounds it:

    demonstrations   L = -pi / max(sg pi, floor) A     (d/dlog pi = min(1, pi / floor))
    own responses    L = PPO's clipped surrogate on r = pi / prox

Status: adapted. The paper lets the policy continue prefixes of 0, 25, 50 and 100 % of a
demonstration, chosen within the group; here demonstrations are whole (buffer=luffy).

Public code: agrees with the authors' (Su-my/TRAPO, off_policy_reshape="clip_low"), where the clip
of own responses can be removed as in LUFFY's (`on_policy_clip=false`). Its advantage has the mean
and deviation of the policy's own responses (advantage.demonstrations=left_out).
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.luffy import OwnClipConfig
from algorithms.ratio import RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.registry import register


class TrapoConfig(OwnClipConfig):
    """Settings of TRAPO."""

    floor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Demonstrated tokens that are less likely than this lose weight in proportion."""


def floored(logp: Tensor, floor: float) -> Tensor:
    """p / max(sg p, floor) [B, T] with p = exp(logp)."""
    return logp.exp() / logp.detach().exp().clamp(min=floor)


@register("loss", "trapo")
class TRAPO(RatioLoss[TrapoConfig]):
    """Demonstrations: L = -pi / max(sg pi, floor) A. The policy's own: PPO's surrogate."""

    sources = ("2512.17636",)
    accepts_expert = True

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask, expert = self.config, batch.mask, batch.mask & batch.expert[:, None]
        ratio = self.ratio(policy.logp, self.other(batch), mask & ~expert)
        own, clipped = c.own(ratio, batch.advantage)
        taught = floored(torch.where(expert, policy.logp, 0.0), c.floor)
        value = torch.where(expert, -taught * batch.advantage, own)
        return policy_output(value, mask, ratio=ratio, clip_fraction=clipped)
