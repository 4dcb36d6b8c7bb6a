"""Whole responses left out by the geometric mean of their importance weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from algorithms.corrections.tis import prox_over_behavior
from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction, PartConfig
from rlkit.ops import sequence_mean
from rlkit.registry import register

Bound = Annotated[float, Field(gt=0)]


def inside(log_weight: Tensor, mask: Tensor, low: float, high: float) -> Tensor:
    """Whether low <= exp(mean_t log_weight) <= high, [B] bool."""
    mean = sequence_mean(log_weight, mask)
    return (mean >= math.log(low)) & (mean <= math.log(high))


class GeoMaskConfig(PartConfig):
    """Settings of the bounds. The defaults are verl's preset, for fresh data of another engine."""

    is_min: Bound = 0.999
    """Lower bound of the geometric mean of prox / behavior."""
    is_max: Bound = 1.001
    """Upper bound of the geometric mean."""
    is_log_clamp: Bound | None = 20.0
    """The log of each token's weight is clamped to [-c, c] first; null = no clamp."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.is_min > self.is_max:
            raise ValueError(f"is_min={self.is_min} must not exceed is_max={self.is_max}")
        return self

    def clamped(self, log_weight: Tensor) -> Tensor:
        """log_weight within the clamp."""
        if self.is_log_clamp is None:
            return log_weight
        return log_weight.clamp(-self.is_log_clamp, self.is_log_clamp)


@register("correction", "geo_mask")
class GeoMask(Correction[GeoMaskConfig]):
    """A response leaves the mask unless is_min <= (prod_t prox_t / behavior_t)^(1/T) <= is_max.

    The length does not matter, unlike for a product; the denominators shrink with the mask. Kept
    responses are not weighted: follow it by `tis` for that. Demonstrations stay.

    Public code: agrees with verl's rollout_rs=seq_mean_k1, and the bounds with its preset
    decoupled_geo_rs. Replayed data need wider ones.
    """

    sources = ()
    needs = frozenset({"behavior", "prox"})
    mask_reads_prox = True

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch with the smaller mask; the weight [B, T] is 1 for the kept and 0 otherwise."""
        c = self.config
        log_weight = c.clamped(prox_over_behavior(batch))
        kept = inside(log_weight, batch.mask, c.is_min, c.is_max) | batch.expert
        smaller = replace(batch, mask=batch.mask & kept[:, None])
        return Corrected(
            batch=smaller, weight=kept[:, None].to(log_weight.dtype).expand_as(log_weight)
        )


class SeqMaskTISConfig(GeoMaskConfig):
    """Settings of the bounds; the weight of a kept token has none but the clamp's."""

    is_min: Bound = 0.5
    is_max: Bound = 5.0
    is_log_clamp: Bound | None = 20.0
    """The log of a kept token's weight is clamped to [-c, c]; null = no clamp. Which responses stay
    is decided by the mean without it."""


@register("correction", "seq_mask_tis")
class SeqMaskTIS(Correction[GeoMaskConfig]):
    """w = prox / behavior of the token, but 0 in responses whose geometric mean is out of bounds.

    The denominators keep what is left out. Demonstrations get weight 1.

    Public code: agrees with OpenRLHF's seq-mask-tis (bounds 0.5 and 5), which has no log clamp
    (is_log_clamp=null): a token's weight can then be infinite.
    """

    Config = SeqMaskTISConfig
    sources = ()
    needs = frozenset({"behavior", "prox"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch as it is, and the weight [B, T]."""
        c = self.config
        log_weight = prox_over_behavior(batch)
        kept = inside(log_weight, batch.mask, c.is_min, c.is_max) | batch.expert
        weight = c.clamped(log_weight).exp()
        return Corrected(batch=batch, weight=torch.where(kept[:, None], weight, 0.0))
