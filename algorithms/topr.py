"""Tapered off-policy REINFORCE, TOPR (arXiv:2503.14286).

Good responses are imitated at full weight wherever they came from; bad ones are pushed down only as
far as the policy would still give them. That keeps off-policy REINFORCE stable without a KL penalty
or a clip.
"""

from __future__ import annotations

import math
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import Aggregation, RatioLevel, masked_log_ratio, sequence_log_ratio
from rlkit.registry import register

Weight = Annotated[float, Field(ge=0)]


def tapered(
    log_ratio: Tensor,
    positive: Tensor,
    *,
    pos_min: float,
    pos_max: float | None,
    neg_min: float,
    neg_max: float | None,
) -> Tensor:
    """The log of clip(ratio, min, max) [B, T], the bounds chosen by `positive` [B, T]; None = none.

    `log_ratio` is [B, T] or [B, 1]. The clip happens before exp, so that no ratio overflows.
    """
    pos_low, pos_high, neg_low, neg_high = (
        log_ratio.new_tensor(_log(bound)) for bound in (pos_min, pos_max, neg_min, neg_max)
    )
    low, high = torch.where(positive, pos_low, neg_low), torch.where(positive, pos_high, neg_high)
    return log_ratio.expand_as(low).clamp(low, high)


def _log(bound: float | None) -> float:
    if bound is None:
        return math.inf
    return math.log(bound) if bound > 0 else -math.inf


class ToprConfig(LossConfig):
    """Settings of the tapers. The defaults are the paper's canonical ones (Table 1)."""

    aggregation: Aggregation = "seq-mean-token-mean"
    ratio_level: RatioLevel = "product"
    """Which ratio is tapered: the sequence's (the paper's), its geometric mean, or each token's."""
    pos_min: Weight = 1.0
    """Lower taper of positive advantages."""
    pos_max: Weight | None = 1.0
    """Upper taper of positive advantages; null = none."""
    neg_min: Weight = 0.0
    """Lower taper of negative advantages; above 0 their push is unbounded."""
    neg_max: Weight | None = 1.0
    """Upper taper of negative advantages; null = none."""
    zero_is_positive: bool = False
    """Which taper a zero advantage takes; its gradient is zero anyway, only the log differs."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for sign in ("pos", "neg"):
            low, high = getattr(self, f"{sign}_min"), getattr(self, f"{sign}_max")
            if high is not None and low > high:
                raise ValueError(f"{sign}_min={low} must not exceed {sign}_max={high}")
        return self


@register("loss", "topr")
class TOPR(PolicyLoss[ToprConfig]):
    """L = -sg[w] A log pi, w = clip(pi / behavior, a, b) with [a, b] by the sign of A (Eqs. 7-8).

    A response's loss is divided by its length, as in the paper. It expects rewards of +-1 without a
    baseline (advantage=reward). `log_ratio_clamp` bounds log w.

    Public code: Trinity-RFT and ROLL taper each token's ratio (ratio_level=token) and average over
    tokens; a proposed change to verl tapers the length-normalized ratio (ratio_level=geometric),
    with A = 0 as positive. None ships the paper's product over the response.
    """

    sources = ("2503.14286",)
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        token_log_ratio = masked_log_ratio(policy.logp.detach(), batch.behavior_logp, mask)
        log_ratio = sequence_log_ratio(token_log_ratio, mask, c.ratio_level)
        if c.log_ratio_clamp is not None:
            log_ratio = log_ratio.clamp(-c.log_ratio_clamp, c.log_ratio_clamp)
        zero = torch.full_like(mask, c.zero_is_positive) & (batch.advantage == 0)
        log_weight = tapered(
            log_ratio,
            (batch.advantage > 0) | zero,
            pos_min=c.pos_min,
            pos_max=c.pos_max,
            neg_min=c.neg_min,
            neg_max=c.neg_max,
        )
        value = -log_weight.exp() * batch.advantage * torch.where(mask, policy.logp, 0.0)
        ratio = self.ratio(policy.logp.detach(), batch.behavior_logp, mask)
        return LossOutput(
            terms=[Term(name="policy", value=value, mask=mask)],
            metrics={
                "clip_fraction": (log_weight != log_ratio).to(ratio.dtype),
                "ratio_mean": ratio,
                "ratio_max": ratio,
                "weight": log_weight.exp(),
            },
        )
