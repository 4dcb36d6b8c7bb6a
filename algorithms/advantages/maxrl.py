"""Differences to the group's mean over that mean, MaxRL (arXiv:2602.02710)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from algorithms.advantages.outcome import SingletonConfig, lonely, outcome
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.errors import UserError
from rlkit.interfaces import AdvantageEstimator
from rlkit.ops import group_centred, group_mean
from rlkit.registry import register


class MaxRLConfig(SingletonConfig):
    """Settings of the scale."""

    eps: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the group's mean."""


@register("advantage", "maxrl")
class MaxRL(AdvantageEstimator[MaxRLConfig]):
    """A = (R - mean(R_group)) / (mean(R_group) + eps): hard prompts count more.

    With 0/1 rewards the mean is the success rate, and the division turns the gradient of the
    success rate into that of its logarithm: maximum likelihood of a correct answer
    (arXiv:2602.02710). Rewards must not be negative: a mean near 0 would blow differences up, one
    below 0 would push right answers down.

    Public code: agrees with SkyRL's maxrl.
    """

    sources = ("2602.02710",)
    min_group = 2
    nonnegative = True

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        if bool((b.reward < 0).any()):
            raise UserError(
                "advantage=maxrl divides by a group's mean reward, and there is a reward of "
                f"{float(b.reward.min()):g}; make every reward 0 or more, or choose another "
                "advantage"
            )
        mean = group_mean(b.reward, b.group)
        advantage = group_centred(b.reward, b.group) / (mean + c.eps)
        return outcome(lonely(advantage, b.reward, b.group, c.singleton), b)
