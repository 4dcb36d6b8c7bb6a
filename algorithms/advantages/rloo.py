"""Leave-one-out baseline, RLOO (arXiv:2402.14740)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.ops import group_centred, group_size, over_tokens
from rlkit.registry import register


def leave_one_out(reward: Tensor, group: Tensor) -> Tensor:
    """R_i - mean of the others = n / (n - 1) (R_i - mean), [B]; 0 for a response that is alone."""
    size = group_size(group, reward.dtype)
    return group_centred(reward, group) * size / (size - 1).clamp(min=1)


class RlooConfig(PartConfig):
    """Settings of the leave-one-out baseline."""

    singleton: Literal["raw_score", "zero"] = "raw_score"
    """What a response alone in its group gets: its reward, or 0."""


@register("advantage", "rloo")
class RLOO(AdvantageEstimator[RlooConfig]):
    """A_i = R_i - mean of the other rewards of the group: an unbiased baseline without a critic."""

    Config = RlooConfig
    min_group = 2

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        advantage = leave_one_out(b.reward, b.group)
        if self.config.singleton == "raw_score":
            alone = group_size(b.group, b.reward.dtype) == 1
            advantage = torch.where(alone, b.reward, advantage)
        return AdvantageOutput(
            advantage=over_tokens(advantage, b.mask), returns=over_tokens(b.reward, b.mask)
        )
