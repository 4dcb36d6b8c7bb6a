"""Rewards brought to mean 0 and spread 1 over the whole batch, without groups."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from algorithms.advantages.outcome import outcome, standardized
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.registry import register


class BatchNormConfig(PartConfig):
    """Settings of the scale."""

    unbiased: bool = True
    """Whether the standard deviation divides by B - 1 rather than B."""
    eps: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the standard deviation."""


@register("advantage", "batch_norm")
class BatchNorm(AdvantageEstimator[BatchNormConfig]):
    """One baseline for all prompts: A = (R - mean of the batch) / (std of the batch + eps).

    It needs no second response to a prompt. The global normalization of REINFORCE++
    (arXiv:2501.03262, Eq. 5), over responses.

    Public code: verl, slime and NeMo-RL normalize over tokens instead, so that long responses
    weigh more; that is `reinforce_pp`.
    """

    sources = ("2501.03262",)

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        return outcome(standardized(b.reward, c.eps, unbiased=c.unbiased), b)
