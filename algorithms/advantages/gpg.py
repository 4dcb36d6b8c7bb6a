"""Group differences rescaled for useless prompts, GPG (arXiv:2504.02546)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from algorithms.advantages.outcome import SingletonConfig, lonely, outcome
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator
from rlkit.ops import group_centred
from rlkit.registry import register


class GPGConfig(SingletonConfig):
    """Settings of the scale."""

    f_norm: Annotated[float, Field(gt=0)] = 1.0
    """What differences to the group's mean are divided by."""


@register("advantage", "gpg")
class GPG(AdvantageEstimator[GPGConfig]):
    """A = alpha (R - mean(R_group)) / f_norm, alpha = responses / responses with a score.

    alpha makes up for responses that give no gradient.

    Public code: agrees with verl's gpg, which counts scores other than 0; a wrong answer beside a
    correct one raises alpha too, although it has a gradient.
    """

    sources = ("2504.02546",)
    min_group = 2

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        alpha = len(b.reward) / max(1, int(b.reward.count_nonzero()))
        centred = lonely(group_centred(b.reward, b.group), b.reward, b.group, c.singleton)
        return outcome(alpha * centred / c.f_norm, b)
