"""ASPO: tokens of good responses weigh the inverse of their ratio (arXiv:2510.06062).

Under PPO a token that the policy has made likely already (r > 1) is pushed up even more, and one it
has lost (r < 1) is pushed up less. ASPO turns this around where A > 0:

    A > 0   L = -sg[min(1/r, dual_clip) / r] r A, no gradient where r > 1 + eps
    A < 0   L = PPO's with dual clip: min(-min(r A, clip(r, 1 - eps, 1 + eps) A), -dual_clip A)

r = pi / prox. The bound dual_clip on 1/r is soft: the token keeps a gradient. eps is larger on the
tokens of highest entropy.

Public code: the authors' (wizard-III/Archer2.0, compute_policy_loss_archer) could be read in a
summary only. There the branches of the two signs look swapped: `inverted=negative` is that reading.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ppo import clipped_surrogate
from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.registry import register

Width = Annotated[float, Field(gt=0, le=1)]


class AspoConfig(RatioConfig):
    """Settings of ASPO."""

    eps: Width = 0.2
    """Clip width of the ordinary tokens."""
    eps_uncertain: Width = 0.4
    """Clip width of the tokens whose entropy is above the quantile."""
    entropy_quantile: Annotated[float, Field(ge=0, le=1)] | None = 0.8
    """Which quantile of the minibatch's token entropies; null = every token is ordinary. Read in a
    summary of the code; unconfirmed."""
    dual_clip: Annotated[float, Field(gt=1)] = 3.0
    """Largest 1/r where the ratio is inverted, and largest r where it is not and A < 0."""
    inverted: Literal["positive", "negative"] = "positive"
    """The sign of the advantage whose ratio is inverted: the paper's, or as the public code looks.
    """


def quantile_above(entropy: Tensor, mask: Tensor, quantile: float) -> Tensor:
    """Where the entropy [B, T] is above this quantile of the valid tokens', bool.

    Between two tokens the quantile is interpolated, as in torch.quantile, which takes no more than
    16 million of them.
    """
    ordered = torch.where(mask, entropy, torch.inf).flatten().sort().values
    last = (mask.sum() - 1).clamp(min=0)
    place = quantile * last.to(entropy.dtype)
    low = place.long()
    high = torch.minimum(low + 1, last)
    bound = torch.lerp(ordered.gather(0, low[None]), ordered.gather(0, high[None]), place - low)
    return mask & (entropy > bound)


def inverse_weighted(
    ratio: Tensor, advantage: Tensor, low: Tensor, high: Tensor, largest: float
) -> tuple[Tensor, Tensor]:
    """-sg[min(1/r, largest) / r] r A and where it has no gradient, [B, T] each.

    That is where A > 0 and r > high, and where A < 0 and r < low.
    """
    weight = (1 / ratio.detach()).clamp(max=largest) / ratio.detach()
    out = ((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio < low))
    kept = torch.where(out, (weight * ratio).detach(), weight * ratio)
    return -kept * advantage, out.to(ratio.dtype)


@register("loss", "aspo")
class ASPO(RatioLoss[AspoConfig]):
    """A > 0: the token's gradient weighs min(1/r, dual_clip); A < 0: PPO's with dual clip."""

    sources = ("2510.06062",)

    def __init__(self, config: AspoConfig | None = None) -> None:
        super().__init__(config)
        if self.config.entropy_quantile is not None:
            self.needs = self.needs | {"entropy"}
            self.scope = "minibatch"

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask, advantage = self.config, batch.mask, batch.advantage
        ratio = self.ratio(policy.logp, self.other(batch), mask)
        eps = torch.full_like(ratio, c.eps)
        if c.entropy_quantile is not None:
            above = quantile_above(policy.entropy.detach(), mask, c.entropy_quantile)
            eps = eps.masked_fill(above, c.eps_uncertain)
        plain = clipped_surrogate(ratio, advantage, 1 - eps, 1 + eps, dual_clip=c.dual_clip)
        inverse = inverse_weighted(ratio, advantage, 1 - eps, 1 + eps, c.dual_clip)
        turned = advantage > 0 if c.inverted == "positive" else advantage < 0
        value, clipped = (torch.where(turned, a, b) for a, b in zip(inverse, plain, strict=True))
        return policy_output(value, mask, ratio=ratio, clip_fraction=clipped)
