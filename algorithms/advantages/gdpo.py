"""Several rewards, each normalized before they are added, GDPO (arXiv:2601.05242)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from algorithms.advantages.group_norm import group_advantage
from algorithms.advantages.outcome import outcome, standardized
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.errors import UserError, suggest
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.ops import apart
from rlkit.registry import register


class GDPOConfig(PartConfig):
    """Settings of the sum."""

    weights: dict[str, float] = Field(default_factory=dict)
    """Reward name -> its weight in the sum; the reward's own (`reward.<name>.weight`, or minus the
    multiplier of a limit) for each reward not named. On the command line:
    `+advantage.weights.math=2`."""
    eps: Annotated[float, Field(gt=0)] = 1e-4
    """Added to each standard deviation, of a reward in its group and of the sum in the batch."""


@register("advantage", "gdpo")
class GDPO(AdvantageEstimator[GDPOConfig]):
    """A = standardize_batch(sum_k w_k (R_k - mean(R_k,group)) / (std(R_k,group) + eps)).

    Rewards that are summed first hide each other: (1, 0) and (0, 1) become the same number. Each is
    normalized in its group instead, over the responses it applies to, and the weighted sum over the
    batch's responses. An in-reward KL penalty belongs to no single reward and is not seen here.

    Public code: agrees with TRL's multi_objective_aggregation="normalize_then_sum" (std with n - 1,
    eps 1e-4). verl's gdpo whitens the sum over tokens.
    """

    sources = ("2601.05242",)
    min_group = 2
    sees_penalty = False

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        rewards = b.rewards or {"reward": b.reward}
        for name in c.weights:
            if b.rewards and name not in rewards:
                raise UserError(
                    f"advantage.weights names the reward '{name}', which this run does not have."
                    f"{suggest(name, list(rewards))} Rewards: {', '.join(rewards)}"
                )
        total = torch.zeros_like(b.reward)
        for name, reward in rewards.items():
            ones = torch.ones_like(reward)
            applies = b.reward_applies.get(name, ones.bool())
            advantage = group_advantage(
                reward,
                apart(b.group, applies),
                std="group",
                unbiased=True,
                eps=c.eps,
                singleton="zero",
            )
            weight = c.weights.get(name, b.reward_weights.get(name, ones))
            total = total + weight * advantage
        return outcome(standardized(total, c.eps), b)
