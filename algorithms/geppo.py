"""Generalized PPO with sample reuse, GePPO (arXiv:2111.00072).

The clip is around the policy that the step starts from, not around the one that made the data, and
is the narrower the older the data is, so that reuse costs none of PPO's guarantees.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from algorithms.ppo import clipped_surrogate
from algorithms.ratio import policy_output
from algorithms.remix import mix_window
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import mean_place, optimal_shares
from rlkit.registry import register


class GeppoConfig(LossConfig):
    """Settings of GePPO."""

    epsilon_ppo: Annotated[float, Field(gt=0)] = 0.2
    """Half-width of the clip window if all data were fresh."""
    policies: Annotated[int, Field(ge=1)] = 3
    """M: how many policies' data the batch mixes. 2 batch_multiple - 1 is the most GePPO uses with
    the uniform mixture."""
    mixture: Literal["uniform", "optimal"] = "uniform"
    """How much each policy weighs: 1/M, or the shares that solve GePPO's quadratic program."""
    kappa: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Trade-off of mixture=optimal: 1 seeks the largest effective sample size, 0 the largest
    update."""
    batch_multiple: Annotated[float, Field(ge=1)] = 2.0
    """B of mixture=optimal: the mixed batch counts as at least, and clips as at most, this many
    fresh ones."""

    @model_validator(mode="after")
    def _feasible(self) -> Self:
        if self.mixture == "optimal" and self.policies < self.batch_multiple:
            raise ValueError(
                f"policies={self.policies} must be at least batch_multiple={self.batch_multiple}: "
                "fewer policies do not give that many batches"
            )
        return self

    def shares(self) -> tuple[float, ...]:
        """nu: the weight of each age's policy, newest first, summing to 1."""
        if self.mixture == "uniform":
            return (1 / self.policies,) * self.policies
        return optimal_shares(self.policies, self.batch_multiple, self.kappa)


@register("loss", "geppo")
class GePPO(PolicyLoss[GeppoConfig]):
    """GePPO (arXiv:2111.00072): L = -M nu_age min(r A, clip(r, c - epsilon, c + epsilon) A).

    r = pi / pi_{k-i}, c = pi_k / pi_{k-i}; epsilon = epsilon_ppo / sum_i nu_i (i + 1), which is
    epsilon_ppo 2/(M + 1) for the uniform mixture. The window shrinks as the data ages, so that the
    policy moves no further in a step than PPO's would. M nu_age is a response's share relative to
    the uniform mixture; responses older than M count as the oldest.

    Public code: the authors' code chooses M itself (the uniform M between B and 2B - 1, B = 2; up
    to 20 policies for the optimal mixture) and renormalizes nu while fewer are stored, which a loss
    cannot see: set `policies` to what the buffer holds. Its V-trace advantages and its adaptive
    learning rate are no part of the loss. That its shares also suit groups of responses is
    unconfirmed.
    """

    sources = ("2111.00072",)
    needs = frozenset({"behavior", "prox"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        shares = c.shares()
        epsilon = c.epsilon_ppo / mean_place(shares)
        ratio = self.ratio(policy.logp, batch.behavior_logp, mask)
        centre = self.ratio(batch.prox_logp, batch.behavior_logp, mask)
        low, high = mix_window(centre, epsilon, epsilon, lower_clamp_zero=False)
        value, clipped = clipped_surrogate(ratio, batch.advantage, low, high)
        weight = c.policies * ratio.new_tensor(shares)[batch.age.clamp(max=c.policies - 1)]
        return policy_output(
            weight[:, None] * value, mask, ratio=ratio, clip_fraction=clipped, weight=weight
        )
