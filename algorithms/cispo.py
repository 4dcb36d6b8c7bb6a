"""CISPO: clip the importance weight, not the update."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ratio import RatioConfig, RatioLoss, in_clip, policy_output
from algorithms.reinforce import weighted_likelihood
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.registry import register

Convention = Literal["one_plus_eps", "absolute_cap"]


class CispoConfig(RatioConfig):
    """Settings of the weight's bounds."""

    convention: Convention = "one_plus_eps"
    """What clip_high is: an epsilon, so that the weight is at most 1 + clip_high, or that bound
    itself."""
    clip_low: Annotated[float, Field(ge=0)] | None = None
    """Lower bound of the weight is 1 - clip_low; null, or 1 and above, = none. The paper has none.
    """
    clip_high: Annotated[float, Field(gt=0)] = 0.28
    """Upper bound of the weight, by the convention. The paper tunes it and gives no number; 0.28 is
    Trinity-RFT's. ScaleRL (arXiv:2510.13786) uses the absolute bound 5."""
    ppo_sign_mask: bool = False
    """Drop the tokens that PPO's clip would drop, by the two bounds below (Trinity-RFT)."""
    mask_clip_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    """With ppo_sign_mask: negative advantages lose the tokens with ratios below 1 - this."""
    mask_clip_high: Annotated[float, Field(gt=0)] = 0.28
    """With ppo_sign_mask: positive advantages lose the tokens with ratios above 1 + this."""


def clipped_weight(
    ratio: Tensor, *, clip_low: float | None, clip_high: float, convention: Convention
) -> Tensor:
    """The ratio clipped to the bounds of the weight, [B, T]."""
    low = 0.0 if clip_low is None else 1 - clip_low
    one = 1.0 if convention == "one_plus_eps" else 0.0
    return ratio.clamp(low, one + clip_high)


@register("loss", "cispo")
class CISPO(RatioLoss[CispoConfig]):
    """REINFORCE with a clipped importance weight, so that every token keeps a gradient.

        L = -sg[clip(r, 1 - clip_low, 1 + clip_high)] A log pi,  r = pi / prox

    Source: MiniMax-M1, arXiv:2506.13585, Eqs. 4-5; token mean over the minibatch, group-normalized
    advantages, no KL.

    Public code: verl, slime, NeMo-RL, SkyRL and open-instruct read clip_high as an epsilon; TRL
    reads it as the absolute bound ("absolute_cap") and has no lower one. Trinity-RFT's lower
    epsilon of 1 is none, and its optional PPO mask is `ppo_sign_mask`; a dropped token still counts
    in the mean.
    """

    sources = ("2506.13585",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        ratio = self.ratio(policy.logp.detach(), self.other(batch), mask)
        weight = clipped_weight(
            ratio, clip_low=c.clip_low, clip_high=c.clip_high, convention=c.convention
        )
        cut = (weight != ratio).to(ratio.dtype)
        if c.ppo_sign_mask:
            kept = in_clip(ratio, batch.advantage, 1 - c.mask_clip_low, 1 + c.mask_clip_high)
            weight, cut = weight * kept, torch.max(cut, 1 - kept)
        value = weighted_likelihood(policy.logp, weight * batch.advantage, mask)
        return policy_output(value, mask, ratio=ratio, clip_fraction=cut)
