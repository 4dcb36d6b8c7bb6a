"""Group-relative advantages, GRPO (arXiv:2402.03300)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.ops import group_centred, group_mean, group_size, over_tokens
from rlkit.registry import register

Spread = Literal["group", "batch", "none"]
Singleton = Literal["raw_score", "zero"]


def group_advantage(
    reward: Tensor, group: Tensor, *, std: Spread, unbiased: bool, eps: float, singleton: Singleton
) -> Tensor:
    """(R - mean of the group) / (std + eps), [B] from rewards and group numbers [B]."""
    size = group_size(group, reward.dtype)
    centred = group_centred(reward, group)
    if singleton == "raw_score":
        centred = torch.where(size > 1, centred, reward)
    if std == "none":
        return centred
    lost = int(unbiased)
    if std == "batch":
        total = (reward - reward.mean()).square().sum()
        return centred / ((total / max(1, len(reward) - lost)).sqrt() + eps)
    variance = group_mean(centred.square(), group) * size / (size - lost).clamp(min=1)
    return centred / (torch.where(size > 1, variance, 1.0).sqrt() + eps)


class GroupNormConfig(PartConfig):
    """Settings of the group baseline and its scale."""

    std: Spread = "group"
    """What differences to the group's mean are divided by: the group's standard deviation (GRPO),
    the whole batch's, or nothing (Dr. GRPO)."""
    unbiased: bool = True
    """Whether the standard deviation divides by n - 1 rather than n."""
    eps: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the standard deviation. TRL uses 1e-4."""
    singleton: Singleton = "raw_score"
    """What a response alone in its group gets: its reward, with standard deviation 1, or 0."""


@register("advantage", "group_norm")
class GroupNorm(AdvantageEstimator[GroupNormConfig]):
    """GRPO: A = (R - mean(R_group)) / (std(R_group) + eps), the same for each token of a response.

    A replayed group brings the statistics of the responses it was sampled with; equal rewards give
    exactly 0 (arXiv:2402.03300).

    Public code: agrees with verl's grpo (eps 1e-6). TRL's eps is 1e-4, its scale_rewards="batch"
    is std=batch; Trinity-RFT's REC divides by the biased deviation (unbiased=false).
    """

    sources = ("2402.03300",)
    min_group = 2

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        advantage = group_advantage(
            b.reward, b.group, std=c.std, unbiased=c.unbiased, eps=c.eps, singleton=c.singleton
        )
        return AdvantageOutput(
            advantage=over_tokens(advantage, b.mask), returns=over_tokens(b.reward, b.mask)
        )
