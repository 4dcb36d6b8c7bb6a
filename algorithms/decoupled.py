"""Decoupled PPO (arXiv:2110.00641; for language models arXiv:2505.24298).

The policy that corrects for off-policy data and the one the clip holds to need not be the same: the
clip is around a recent policy (prox), a detached weight corrects from it to the one that sampled:

    L = -sg[prox / behavior] min(u A, clip(u, 1 - clip_low, 1 + clip_high) A),   u = pi / prox

Public code: equal to ppo-ewma's loss, where prox is a moving average of the weights, and to
AReaL's, where prox is the policy at the start of the step, as here. AReaL may also cap the weight
(`is_max`, once 5.0 by default); ppo-ewma may cap pi / behavior (`imp_samp_max`, 100). verl's
rollout correction bounds the log of the weight (`is_log_clamp`, 20) before it is cut.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from algorithms.ppo import ClipHigh, clipped_surrogate
from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import masked_ratio
from rlkit.registry import register


class DecoupledPPOConfig(LossConfig):
    """Settings of decoupled PPO."""

    clip_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Lower clip of pi / prox: 1 - clip_low."""
    clip_high: ClipHigh = 0.2
    """Upper clip of pi / prox: 1 + clip_high."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Bounds the surrogate of negative advantages by dual_clip * |A|, before the weight; null =
    off."""
    is_min: Annotated[float, Field(ge=0)] | None = None
    """Least weight prox / behavior; null = none."""
    is_max: Annotated[float, Field(gt=0)] | None = None
    """Largest weight prox / behavior; null = none."""
    is_mode: Literal["truncate", "mask"] = "truncate"
    """A weight beyond the bounds is cut to them, or 0 (AReaL's rejection of tokens, which stay in
    the denominators)."""
    is_log_clamp: Annotated[float, Field(gt=0)] | None = None
    """The log of the weight is clamped to [-c, c] before the bounds (verl: 20); null = by
    `log_ratio_clamp`, as the ratio's is."""
    imp_samp_max: Annotated[float, Field(gt=0)] | None = None
    """Largest pi / behavior: if it is larger, behavior is taken as pi / imp_samp_max in the
    weight; null = none."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.is_min is not None and self.is_max is not None and self.is_min > self.is_max:
            raise ValueError(f"is_min={self.is_min} must not exceed is_max={self.is_max}")
        return self


def least_behavior(behavior_logp: Tensor, logp: Tensor, ratio_max: float | None) -> Tensor:
    """The behavior log-prob [B, T], raised where pi / behavior would exceed `ratio_max`."""
    if ratio_max is None:
        return behavior_logp
    return torch.maximum(behavior_logp, logp.detach() - math.log(ratio_max))


@register("loss", "decoupled_ppo")
class DecoupledPPO(PolicyLoss[DecoupledPPOConfig]):
    """L = -sg[prox / behavior] min(u A, clip(u) A), u = pi / prox."""

    sources = ("2110.00641", "2505.24298")
    needs = frozenset({"behavior", "prox"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        ratio = self.ratio(policy.logp, batch.prox_logp, mask)
        value, clipped = clipped_surrogate(
            ratio, batch.advantage, 1 - c.clip_low, 1 + c.clip_high, dual_clip=c.dual_clip
        )
        behavior = least_behavior(batch.behavior_logp, policy.logp, c.imp_samp_max)
        highest = torch.inf if c.is_max is None else c.is_max
        clamp = c.is_log_clamp or c.log_ratio_clamp
        raw = masked_ratio(batch.prox_logp, behavior, mask, clamp)
        weights = raw.clamp(c.is_min or 0.0, highest)
        if c.is_mode == "mask":
            weights = torch.where(weights == raw, raw, 0.0)
        return policy_output(
            weights * value, mask, ratio=ratio, clip_fraction=clipped, weights=weights
        )
