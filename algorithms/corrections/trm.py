"""Trust-region masking of whole responses by their worst token (arXiv:2512.23075)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.corrections.filters import without
from algorithms.corrections.tis import prox_over_behavior
from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction, PartConfig
from rlkit.registry import register

LARGEST = 20.0
"""Log-ratios are cut at +-20, as in verl, so that exp stays finite."""


class TRMConfig(PartConfig):
    """Settings of the mask."""

    delta: Annotated[float, Field(gt=0)] = 0.05
    """Largest divergence that a token of a kept response may have, in nats. The paper's value could
    not be read; unconfirmed."""
    estimator: Literal["k2", "k3"] = "k3"
    """k2 = D^2 / 2, k3 = exp(D) - 1 - D, with D = log(prox / behavior)."""


def divergence(log_ratio: Tensor, estimator: Literal["k2", "k3"]) -> Tensor:
    """A token's divergence [B, T], in nats."""
    if estimator == "k2":
        return 0.5 * log_ratio.square()
    return torch.expm1(log_ratio) - log_ratio


@register("correction", "trm")
class TRM(Correction[TRMConfig]):
    """A response leaves the mask if max_t d(log prox_t / behavior_t) > delta.

    A bound on the error of off-policy gradients holds only if every token is near, so one token
    decides, unlike with the mean of `geo_mask`. The denominators shrink with the mask.
    Demonstrations stay.

    Public code: agrees with verl's rollout_rs=seq_max_k2 and seq_max_k3.
    """

    sources = ("2512.23075",)
    needs = frozenset({"behavior", "prox"})
    mask_reads_prox = True

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch with the smaller mask, and the 0/1 weight [B, T]."""
        c = self.config
        log_ratio = prox_over_behavior(batch).clamp(-LARGEST, LARGEST)
        worst = divergence(log_ratio, c.estimator).where(batch.mask, 0.0).amax(-1)
        return without(batch, (worst > c.delta) & ~batch.expert)
