"""Only the best response of a group counts (arXiv:2503.19595)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.advantages.outcome import outcome
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.ops import group_centred, group_max, group_mean, group_size, group_sum, sequence_sum
from rlkit.registry import register


def lead(reward: Tensor, group: Tensor) -> Tensor:
    """Best less second best of the group for the best response, else 0: [B]."""
    best = reward == group_max(reward, group)
    second = group_max(torch.where(best, -torch.inf, reward), group)
    sole = best & (group_sum(best.to(reward.dtype), group) == 1)
    alone = group_size(group, reward.dtype) == 1
    return torch.where(sole & ~alone, reward - second, 0.0)


class GrpoPasskConfig(PartConfig):
    """Settings of the scale."""

    std: bool = True
    """Whether the lead is divided by the group's standard deviation."""
    eps: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the standard deviation."""
    unbiased: bool = True
    """Whether the standard deviation divides by n - 1 rather than n."""


@register("advantage", "grpo_passk")
class GrpoPassk(AdvantageEstimator[GrpoPasskConfig]):
    """A = (R_max - R_second) / (std + eps) for the best response of the group, 0 for the others.

    What the best response adds to max(R_1 .. R_k), which is what pass@k rewards
    (arXiv:2503.19595). Two that share the first place add nothing. R is the sum of the token
    rewards, so that a response without valid tokens scores 0.

    Public code: agrees with verl's grpo_passk.
    """

    sources = ("2503.19595",)
    min_group = 2

    @property
    def divides_by_spread(self) -> bool:
        """By the settings."""
        return self.config.std

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        reward = sequence_sum(b.token_reward, b.mask)
        advantage = lead(reward, b.group)
        if c.std:
            size = group_size(b.group, reward.dtype)
            square = group_mean(group_centred(reward, b.group).square(), b.group)
            variance = square * size / (size - int(c.unbiased)).clamp(min=1)
            advantage = advantage / (variance.sqrt() + c.eps)
        return outcome(advantage, b)
