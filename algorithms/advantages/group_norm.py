"""Group-relative advantages, GRPO (arXiv:2402.03300)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.ops import (
    group_centred,
    group_max,
    group_mean,
    group_size,
    group_sum,
    over_tokens,
)
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


def advantage_over_own(
    reward: Tensor, group: Tensor, own: Tensor, *, std: Spread, unbiased: bool, eps: float
) -> Tensor:
    """(R - mean) / (std + eps) by the statistics of the group's `own` rows ([B] bool) alone, [B].

    With fewer than two of them the mean is 0 and the deviation 1; a deviation of 0 counts as 1.
    """
    count = group_sum(own.to(reward.dtype), group)
    highest = group_max(torch.where(own, reward, -torch.inf), group)
    lowest = -group_max(torch.where(own, -reward, -torch.inf), group)
    mean = group_sum(torch.where(own, reward, 0.0), group) / count.clamp(min=1)
    mean = torch.where(highest == lowest, highest, mean)  # exactly, where all are equal
    centred = reward - torch.where(count > 1, mean, 0.0)
    if std == "none":
        return centred
    squares = group_sum(torch.where(own, centred.square(), 0.0), group)
    spread = (squares / (count - int(unbiased)).clamp(min=1)).sqrt()
    return centred / (torch.where((count > 1) & (highest > lowest), spread, 1.0) + eps)


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


class OwnGroupNormConfig(GroupNormConfig):
    """Settings of GRPO's estimator."""

    demonstrations: Literal["counted", "left_out"] = "counted"
    """Whether demonstrations count in the group's mean and standard deviation. They get an
    advantage in either case."""

    @model_validator(mode="after")
    def _own_statistics_of_groups(self) -> Self:
        if self.demonstrations == "left_out" and self.std == "batch":
            raise ValueError("demonstrations=left_out is for std=group or none, not batch")
        return self


@register("advantage", "group_norm")
class GroupNorm(AdvantageEstimator[OwnGroupNormConfig]):
    """GRPO: A = (R - mean(R_group)) / (std(R_group) + eps), the same for each token of a response.

    A replayed group brings the statistics of the responses it was sampled with; equal rewards give
    exactly 0 (arXiv:2402.03300).

    Public code: agrees with verl's grpo (eps 1e-6). TRL's eps is 1e-4, its scale_rewards="batch"
    is std=batch; Trinity-RFT's REC divides by the biased deviation (unbiased=false).
    """

    sources = ("2402.03300",)
    min_group = 2

    @property
    def divides_by_spread(self) -> bool:
        """By the settings."""
        return self.config.std == "group"

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        if c.demonstrations == "left_out" and bool(b.expert.any()):
            advantage = advantage_over_own(
                b.reward, b.group, ~b.expert, std=c.std, unbiased=c.unbiased, eps=c.eps
            )
        else:
            advantage = group_advantage(
                b.reward, b.group, std=c.std, unbiased=c.unbiased, eps=c.eps, singleton=c.singleton
            )
        return AdvantageOutput(
            advantage=over_tokens(advantage, b.mask), returns=over_tokens(b.reward, b.mask)
        )
