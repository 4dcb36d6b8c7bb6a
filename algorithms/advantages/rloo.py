"""Leave-one-out baseline, RLOO (arXiv:2402.14740)."""

from __future__ import annotations

from torch import Tensor

from algorithms.advantages.outcome import SingletonConfig, lonely, outcome, standardized
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator
from rlkit.ops import group_centred, group_size
from rlkit.registry import register

NORMALIZE_EPS = 1e-4
"""TRL's, added to the standard deviation."""


def leave_one_out(reward: Tensor, group: Tensor) -> Tensor:
    """R_i - mean of the others = n / (n - 1) (R_i - mean), [B]; 0 for a response that is alone."""
    size = group_size(group, reward.dtype)
    return group_centred(reward, group) * size / (size - 1).clamp(min=1)


class RlooConfig(SingletonConfig):
    """Settings of the leave-one-out baseline."""

    normalize: bool = False
    """Whether advantages are then brought to mean 0 and standard deviation 1 over the batch's
    responses (TRL's normalize_advantages)."""


@register("advantage", "rloo")
class RLOO(AdvantageEstimator[RlooConfig]):
    """A_i = R_i - mean of the other rewards of the group: an unbiased baseline without a critic.

    Public code: agrees with verl's rloo (a lonely response keeps its reward), with verl's
    rloo_vectorized (singleton=zero), and with TRL, whose KL is in the reward.
    """

    sources = ("2402.14740",)
    min_group = 2

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        advantage = lonely(leave_one_out(b.reward, b.group), b.reward, b.group, c.singleton)
        return outcome(standardized(advantage, NORMALIZE_EPS) if c.normalize else advantage, b)
