"""The reward itself as the advantage, on another scale."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.ops import over_tokens
from rlkit.registry import register


class RewardConfig(PartConfig):
    """Settings of the scale. The defaults take 0/1 rewards to -1/+1."""

    scale: Annotated[float, Field(gt=0)] = 2.0
    """Multiplies the reward."""
    shift: float = -1.0
    """Added after the scaling; rewards that end below 0 are pushed down."""


@register("advantage", "reward")
class ScaledReward(AdvantageEstimator[RewardConfig]):
    """A = scale * R + shift, without a baseline, as TOPR (arXiv:2503.14286) expects.

    Public code: Trinity-RFT's `reinforce` and NeMo-RL's raw reward are scale=1, shift=0.
    """

    sources = ("2503.14286",)

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the same."""
        advantage = over_tokens(self.config.scale * b.reward + self.config.shift, b.mask)
        return AdvantageOutput(advantage=advantage, returns=advantage)
