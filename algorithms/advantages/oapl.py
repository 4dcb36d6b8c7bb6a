"""The optimal value as the baseline, OAPL (arXiv:2602.19362)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from algorithms.advantages.opmd import soft_centred
from algorithms.advantages.outcome import outcome
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.registry import register


class OAPLConfig(PartConfig):
    """Settings of the value."""

    beta1: Annotated[float, Field(gt=0)] = 1.0
    """Strength of the KL regularization in the optimal value: to infinity the group's mean, to 0
    its best reward."""


@register("advantage", "oapl")
class OAPLAdvantage(AdvantageEstimator[OAPLConfig]):
    """A = R - V*, V* = beta1 log mean exp(R_group / beta1) (arXiv:2602.19362, Eq. 2).

    V* estimates the value of the best policy near the one that sampled the group. A response alone
    in its group gets 0.

    Public code: no released framework ships OAPL. TRL's experimental A2PO has the same V*, from
    samples of a fixed reference.
    """

    sources = ("2602.19362",)
    min_group = 2

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        return outcome(soft_centred(b.reward, b.group, self.config.beta1), b)
