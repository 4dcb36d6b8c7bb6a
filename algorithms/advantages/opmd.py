"""The baselines of online policy mirror descent (arXiv:2501.12599)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from algorithms.advantages.outcome import SingletonConfig, lonely, outcome
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator
from rlkit.ops import group_centred, group_log_mean_exp, group_max
from rlkit.registry import register


def soft_centred(reward: Tensor, group: Tensor, temperature: float) -> Tensor:
    """R - temperature log mean exp(R / temperature) over the group, [B].

    Between R - max (temperature 0) and R - mean (infinity); exactly 0 where all are equal.
    """
    below_best = reward - group_max(reward, group)
    return below_best - temperature * group_log_mean_exp(below_best / temperature, group)


class OPMDConfig(SingletonConfig):
    """Settings of the baseline."""

    baseline: Literal["mean", "logavgexp"] = "mean"
    """The group's mean, as Kimi k1.5 trains with, or tau log mean exp(R / tau), which the
    derivation gives."""
    tau: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of logavgexp. The paper gives no number; 1.0 is Trinity-RFT's."""


@register("advantage", "opmd")
class OPMDAdvantage(AdvantageEstimator[OPMDConfig]):
    """A = R - mean(R_group), or A = R - tau log mean exp(R_group / tau).

    Kimi k1.5's mirror descent (arXiv:2501.12599) has tau log Z as its baseline, and replaces it by
    the mean.

    Public code: agrees with Trinity-RFT's opmd for both baselines.
    """

    sources = ("2501.12599",)
    min_group = 2

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        if c.baseline == "mean":
            advantage = group_centred(b.reward, b.group)
        else:
            advantage = soft_centred(b.reward, b.group, c.tau)
        return outcome(lonely(advantage, b.reward, b.group, c.singleton), b)
