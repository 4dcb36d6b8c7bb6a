"""Mix-policy proximal policy gradient: the loss of ReMix (arXiv:2507.06892).

The surrogate is GePPO's (arXiv:2111.00072). A response of an earlier policy is clipped around where
the step starts, not around where the response was made.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from algorithms.ppo import clipped_surrogate
from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import register


def mix_window(
    centre: Tensor, clip_low: float, clip_high: float, *, lower_clamp_zero: bool
) -> tuple[Tensor, Tensor]:
    """The clip window [c - clip_low, c + clip_high] around c = pi_k / pi_{k-i}, each bound [B, T].

    It is additive in the ratio pi / pi_{k-i}. In pi / pi_k it is [1 - clip_low / c, 1 + clip_high /
    c]: at the first gradient step nothing is clipped, however old the response, and c = 1 (a fresh
    one) is PPO's window.
    """
    low = centre - clip_low
    return low.clamp(min=0) if lower_clamp_zero else low, centre + clip_high


class RemixConfig(LossConfig):
    """Settings of the mix-policy surrogate."""

    epsilon: Annotated[float, Field(gt=0)] = 0.2
    """Half-width of the clip window. Whether ReMix shrinks it with the age of the data, as GePPO
    does, is not known."""
    clip_low: Annotated[float, Field(gt=0)] | None = None
    """Distance of the lower bound from the centre; null = epsilon."""
    clip_high: Annotated[float, Field(gt=0)] | None = None
    """Distance of the upper bound from the centre; null = epsilon."""
    lower_clamp_zero: bool = False
    """Whether a negative lower bound is raised to 0 (arXiv:2505.22257). It cannot change the
    gradient."""


@register("loss", "remix")
class Remix(PolicyLoss[RemixConfig]):
    """Mix-PPG: L = -min(r A, clip(r, c - epsilon, c + epsilon) A).

    Per token, r = pi / pi_{k-i} and c = pi_k / pi_{k-i}, with pi_{k-i} the policy that sampled the
    response and pi_k the one the step starts from. The tokens are averaged over the minibatch; the
    sources do not print the aggregation.
    """

    Config = RemixConfig
    needs = frozenset({"behavior", "prox"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c = self.config
        ratio = self.ratio(policy.logp, batch.behavior_logp, batch.mask)
        low, high = mix_window(
            centre=self.ratio(batch.prox_logp, batch.behavior_logp, batch.mask),
            clip_low=c.epsilon if c.clip_low is None else c.clip_low,
            clip_high=c.epsilon if c.clip_high is None else c.clip_high,
            lower_clamp_zero=c.lower_clamp_zero,
        )
        value, clipped = clipped_surrogate(ratio, batch.advantage, low, high)
        return policy_output(value, batch.mask, ratio=ratio, clip_fraction=clipped)
