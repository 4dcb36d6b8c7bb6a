"""A group baseline weighted by length, OPO (arXiv:2505.23585)."""

from __future__ import annotations

from torch import Tensor

from algorithms.advantages.outcome import SingletonConfig, lonely, outcome
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator
from rlkit.ops import group_centred, group_sum
from rlkit.registry import register


def length_centred(reward: Tensor, length: Tensor, group: Tensor) -> Tensor:
    """R - sum(T R) / sum(T) over the group, [B] from rewards, lengths and groups [B]."""
    centred = group_centred(reward, group)
    weighted = group_sum(length * centred, group) / group_sum(length, group).clamp(min=1)
    return centred - weighted


@register("advantage", "opo")
class OPO(AdvantageEstimator[SingletonConfig]):
    """A_i = R_i - sum_j T_j R_j / sum_j T_j: the baseline of least variance.

    It is optimal if a response's gradient grows with its number of valid tokens T. No division
    by a spread.

    Public code: agrees with verl's opo.
    """

    sources = ("2505.23585",)
    min_group = 2

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        advantage = length_centred(b.reward, b.mask.sum(-1).to(b.reward.dtype), b.group)
        return outcome(lonely(advantage, b.reward, b.group, self.config.singleton), b)
