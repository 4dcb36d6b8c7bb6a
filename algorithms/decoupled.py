"""Decoupled PPO (arXiv:2110.00641; for language models arXiv:2505.24298).

The policy that corrects for off-policy data and the one the clip holds to need not be the same: the
clip is around a recent policy (prox), a detached weight corrects from it to the one that sampled:

    L = -sg[prox / behavior] min(u A, clip(u, 1 - clip_low, 1 + clip_high) A),   u = pi / prox

Public code: equal to ppo-ewma's loss, where prox is a moving average of the weights, and to
AReaL's, where prox is the policy at the start of the step, as here. AReaL may also cap the weight
(`is_max`, once 5.0 by default); ppo-ewma may cap pi / behavior (`imp_samp_max`, 100). verl's
rollout correction bounds the log of the weight (`is_log_clamp`, 20) before it is cut.

A-3PO (arXiv:2512.06547) saves the forward that prox costs on stale data (`prox=interpolated`): a
policy between the one that sampled and the one that learns, by their versions,

    log prox = log behavior + a (log sg pi - log behavior),   a = age / (age + 1)

since pi is on its way from version v to v + 1 and the response was sampled at v - age. Public code:
AReaL has this and the same mixture of probabilities (`interpolation=linear`). With 4 minibatches
and weights synced every 4 steps the embedded model reads 12.2 instead of 20.1 tokens per response,
in 0.89 of the processor time (`benchmarks/interpolated_prox.py`, medians of 20 steps of 128).
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
    prox: Literal["computed", "interpolated"] = "computed"
    """The policy at the start of the step, by a forward of its own where data are stale, or a point
    between behavior and pi, without one (A-3PO)."""
    interpolation: Literal["log", "linear"] = "log"
    """With prox=interpolated: whether log-probs or probabilities are interpolated."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.is_min is not None and self.is_max is not None and self.is_min > self.is_max:
            raise ValueError(f"is_min={self.is_min} must not exceed is_max={self.is_max}")
        if self.interpolation != "log" and self.prox == "computed":
            raise ValueError(
                f"interpolation={self.interpolation} changes nothing with prox=computed; "
                "set prox=interpolated"
            )
        return self


def least_behavior(behavior_logp: Tensor, logp: Tensor, ratio_max: float | None) -> Tensor:
    """The behavior log-prob [B, T], raised where pi / behavior would exceed `ratio_max`."""
    if ratio_max is None:
        return behavior_logp
    return torch.maximum(behavior_logp, logp.detach() - math.log(ratio_max))


def interpolated_prox(
    logp: Tensor, behavior_logp: Tensor, age: Tensor, how: Literal["log", "linear"]
) -> Tensor:
    """The log-prob [B, T] at a = age / (age + 1) of the way from behavior to the policy.

    Age 0 gives behavior itself, and a large age nearly the policy. No gradient.
    """
    share = (age / (age + 1)).to(logp.dtype)[:, None]
    if how == "log":
        return behavior_logp + share * (logp.detach() - behavior_logp)
    sides = (behavior_logp + torch.log1p(-share), logp.detach() + share.log())
    return torch.logaddexp(*sides)


@register("loss", "decoupled_ppo")
class DecoupledPPO(PolicyLoss[DecoupledPPOConfig]):
    """L = -sg[prox / behavior] min(u A, clip(u) A), u = pi / prox."""

    sources = ("2110.00641", "2505.24298", "2512.06547")

    def __init__(self, config: DecoupledPPOConfig | None = None) -> None:
        super().__init__(config)
        computed = self.config.prox == "computed"
        self.needs = frozenset({"behavior", "prox"} if computed else {"behavior"})

    def prox(self, logp: Tensor, batch: LossBatch) -> Tensor:
        """The log-probs the clip is around, [B, T]."""
        if self.config.prox == "computed":
            return batch.prox_logp
        how = self.config.interpolation
        return interpolated_prox(logp, batch.behavior_logp, batch.age, how)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        prox = self.prox(policy.logp, batch)
        ratio = self.ratio(policy.logp, prox, mask)
        value, clipped = clipped_surrogate(
            ratio, batch.advantage, 1 - c.clip_low, 1 + c.clip_high, dual_clip=c.dual_clip
        )
        behavior = least_behavior(batch.behavior_logp, policy.logp, c.imp_samp_max)
        highest = torch.inf if c.is_max is None else c.is_max
        clamp = c.is_log_clamp or c.log_ratio_clamp
        raw = masked_ratio(prox, behavior, mask, clamp)
        weights = raw.clamp(c.is_min or 0.0, highest)
        if c.is_mode == "mask":
            weights = torch.where(weights == raw, raw, 0.0)
        return policy_output(
            weights * value, mask, ratio=ratio, clip_fraction=clipped, weights=weights
        )
