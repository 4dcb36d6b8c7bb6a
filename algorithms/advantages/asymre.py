"""A group baseline moved by a constant, AsymRE (arXiv:2506.20520)."""

from __future__ import annotations

from algorithms.advantages.outcome import SingletonConfig, lonely, outcome
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator
from rlkit.ops import group_centred
from rlkit.registry import register


class AsymREConfig(SingletonConfig):
    """Settings of the baseline."""

    baseline_shift: float = -0.1
    """Added to the group's mean. Below 0 the correct answers outweigh the wrong ones; the paper
    reports a collapse on off-policy data from 0 on."""


@register("advantage", "asymre")
class AsymREAdvantage(AdvantageEstimator[AsymREConfig]):
    """A = R - (mean(R_group) + baseline_shift) (arXiv:2506.20520, Eq. 1).

    Rewards are +-1 in the paper: with 0/1 rewards a shift of -0.05 is the same but for the scale of
    the loss. A group of equal rewards gets the advantage -baseline_shift, as intended.

    Public code: agrees with Trinity-RFT's asymre, which leaves a response alone in its group
    without baseline and shift.
    """

    sources = ("2506.20520",)
    min_group = 2

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        advantage = group_centred(b.reward, b.group) - c.baseline_shift
        return outcome(lonely(advantage, b.reward, b.group, c.singleton), b)
