"""Importance weights for data of another policy: truncated (arXiv:1606.02647) or masked."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction, PartConfig
from rlkit.ops import RatioLevel, masked_log_ratio, masked_mean, sequence_log_ratio
from rlkit.registry import register, variant

Level = Literal["token", "sequence", "geometric"]
Mode = Literal["none", "truncate", "mask"]
Bound = Annotated[float, Field(gt=0)] | None
TINY = 1e-8
"""Mean weight below which weights are not divided by it (verl)."""


def prox_over_behavior(batch: LossBatch) -> Tensor:
    """log(prox / behavior) [B, T], 0 where masked.

    Demonstrations have no behavior log-probs and get 0 too.
    """
    known = batch.mask & ~batch.expert[:, None]
    return masked_log_ratio(batch.prox_logp, batch.behavior_logp, known)


def bounded_weight(log_weight: Tensor, mode: Mode, is_min: Bound, is_max: Bound) -> Tensor:
    """exp(log_weight), cut to the bounds (truncate), 0 beyond them (mask), or as it is (none)."""
    if mode == "none":
        return log_weight.exp()
    low = -math.inf if is_min is None else math.log(is_min)
    high = math.inf if is_max is None else math.log(is_max)
    weight = log_weight.clamp(low, high).exp()
    if mode == "truncate":
        return weight
    return torch.where((log_weight < low) | (log_weight > high), 0.0, weight)


class TISConfig(PartConfig):
    """Settings of the weight."""

    level: Level = "token"
    """One weight per token, the product over the response, or the product's T-th root."""
    mode: Mode = "truncate"
    """Beyond the bounds the weight is cut to them, or 0; none = the bounds are off."""
    is_min: Bound = None
    """Lower bound of the weight; null = none."""
    is_max: Bound = 2.0
    """Upper bound of the weight; null = none."""
    is_log_clamp: Bound = 20.0
    """The log of the weight is clamped to [-c, c] first, so that none overflows; null = no clamp.
    """
    is_batch_normalize: bool = False
    """Whether weights are divided by their mean: over the minibatch's valid tokens, or over its
    responses if a response has one weight."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.is_min is not None and self.is_max is not None and self.is_min > self.is_max:
            raise ValueError(f"is_min={self.is_min} must not exceed is_max={self.is_max}")
        return self


@register("correction", "tis")
class TIS(Correction[TISConfig]):
    """w = min(prox / behavior, 2) on the policy's terms: truncated importance sampling.

    Detached; the source is arXiv:1606.02647. It completes a loss whose ratio is pi / prox. A loss
    whose ratio is pi / behavior needs none. Demonstrations get weight 1.

    Public code: agrees with verl's rollout_is=token (threshold 2, log clamp 20, normalization
    after the truncation), slime's vanilla_tis and TRL's token_truncate; OpenRLHF's tis has two
    bounds and no log clamp.
    """

    sources = ("1606.02647",)
    needs = frozenset({"behavior", "prox"})

    def __init__(self, config: TISConfig | None = None) -> None:
        super().__init__(config)
        self.scope = "minibatch" if self.config.is_batch_normalize else "token"

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch as it is, and the weight [B, T]."""
        c = self.config
        level: RatioLevel = "product" if c.level == "sequence" else c.level
        log_weight = sequence_log_ratio(prox_over_behavior(batch), batch.mask, level)
        if c.is_log_clamp is not None:
            log_weight = log_weight.clamp(-c.is_log_clamp, c.is_log_clamp)
        weight = bounded_weight(log_weight, c.mode, c.is_min, c.is_max)
        if c.is_batch_normalize:
            known = batch.mask & ~batch.expert[:, None]
            mean = masked_mean(weight, known if c.level == "token" else known.any(-1, keepdim=True))
            weight = torch.where(mean > TINY, weight / mean, weight)
        weight = weight.expand_as(batch.prox_logp)
        return Corrected(batch=batch, weight=torch.where(batch.expert[:, None], 1.0, weight))


seq_tis = variant(
    "seq_tis",
    of=TIS,
    level="sequence",
    doc="""w = min(prod_t prox_t / behavior_t, 2), the same on each token of a response.

    Unbiased but for the truncation, at a variance that grows with the length.

    Public code: agrees with verl's rollout_is=sequence and TRL's sequence_truncate.
    """,
)

icepop = variant(
    "icepop",
    of=TIS,
    mode="mask",
    is_min=0.5,
    is_max=5.0,
    sources=("2510.18855",),
    doc="""w = k where 0.5 <= k <= 5, else 0, with k = prox / behavior of the token.

    Tokens on which training and sampling disagree give no gradient and stay in the denominators
    (arXiv:2510.18855, Eqs. 1-3).

    Public code: agrees with verl's rollout_is_threshold="0.5_5.0", slime's icepop_function and
    OpenRLHF's icepop.
    """,
)

mis = variant(
    "mis",
    of=TIS,
    level="sequence",
    mode="mask",
    is_max=3.0,
    sources=(),
    doc="""w = k where is_min <= k <= is_max, else 0, with k = prod_t prox_t / behavior_t.

    Masked importance sampling (Liu et al., "When Speed Kills Stability", 2025): a response too far
    from the policy is left out rather than cut to the bound; the denominators keep it.

    Public code: agrees with TRL's sequence_mask (its default, clip_max 3) and, with level=token,
    token_mask.
    """,
)
