"""Truncated importance sampling (arXiv:1606.02647): weights for data of another policy."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field

from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction, PartConfig
from rlkit.ops import masked_log_ratio, sequence_log_ratio
from rlkit.registry import register


class TISConfig(PartConfig):
    """Settings of the weight."""

    level: Literal["token", "sequence"] = "token"
    """One weight a token, or the product over the response."""
    mode: Literal["truncate", "mask"] = "truncate"
    """Beyond the bounds: the weight is cut to them, or 0 (IcePop, arXiv:2510.18855)."""
    is_min: Annotated[float, Field(gt=0)] | None = None
    """Lower bound of the weight; null = none."""
    is_max: Annotated[float, Field(gt=0)] | None = 2.0
    """Upper bound of the weight; null = none."""
    log_weight_clamp: Annotated[float, Field(gt=0)] = 20.0
    """The log of the weight is clamped to [-c, c] first, so that none overflows."""


@register("correction", "tis")
class TIS(Correction[TISConfig]):
    """Detached w = prox / behavior, truncated or masked; it multiplies the policy's terms.

    It completes a loss whose ratio is pi / prox. A loss whose ratio is pi / behavior needs none.
    Demonstrations have no behaviour log-probs and get weight 1.
    """

    Config = TISConfig
    needs = frozenset({"behavior", "prox"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch as it is, and the weight [B, T]."""
        c = self.config
        token = masked_log_ratio(batch.prox_logp, batch.behavior_logp, batch.mask)
        level = sequence_log_ratio(token, batch.mask, "token" if c.level == "token" else "product")
        log_weight = level.clamp(-c.log_weight_clamp, c.log_weight_clamp).expand_as(token)
        low = -math.inf if c.is_min is None else math.log(c.is_min)
        high = math.inf if c.is_max is None else math.log(c.is_max)
        weight = log_weight.clamp(low, high).exp()
        if c.mode == "mask":
            weight = torch.where((log_weight < low) | (log_weight > high), 0.0, weight)
        return Corrected(batch=batch, weight=torch.where(batch.expert[:, None], 1.0, weight))
