"""Separate weights for correct and wrong answers (arXiv:2506.01347)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from algorithms.advantages.outcome import outcome
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.registry import register

Weight = Annotated[float, Field(ge=0)]


class PsrNsrConfig(PartConfig):
    """Settings of the weights. The defaults are W-REINFORCE's."""

    positive_weight: Weight = 0.1
    """Advantage of a correct response (lambda); 1 with negative_weight=0 is positive sample
    reinforcement (PSR)."""
    negative_weight: Weight = 1.0
    """What a wrong response is pushed down by; 1 with positive_weight=0 is negative sample
    reinforcement (NSR)."""
    threshold: float = 0.5
    """A response is correct if its reward is above this."""


@register("advantage", "psr_nsr")
class PsrNsr(AdvantageEstimator[PsrNsrConfig]):
    """A = positive_weight if R > threshold, else -negative_weight; no baseline.

    Wrong answers alone keep the policy's diversity, and a little weight on correct ones keeps its
    accuracy: W-REINFORCE (arXiv:2506.01347).

    Public code: the authors' psr_nsr (TianHongZXY/RLVR-Decomposed) is the same on their 0/1
    rewards.
    """

    sources = ("2506.01347",)

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        up, down = (torch.full_like(b.reward, w) for w in (c.positive_weight, -c.negative_weight))
        return outcome(torch.where(b.reward > c.threshold, up, down), b)
