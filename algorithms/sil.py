"""Self-imitation learning, SIL (arXiv:1806.05635).

Past responses that did better than expected are imitated, in proportion to how much better; the
others are left alone, so that old failures cannot push the policy anywhere.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import register


class SilConfig(LossConfig):
    """Settings of self-imitation."""

    max_advantage: Annotated[float, Field(gt=0)] | None = None
    """Upper bound of a token's weight (R - V)_+ (the authors' code: 1); null = none."""
    is_clip: Annotated[float, Field(gt=0)] | None = None
    """Multiply by the detached ratio pi / behavior, at most this; demonstrations keep 1. null =
    no ratio, as in the paper."""


@register("loss", "sil")
class SIL(PolicyLoss[SilConfig]):
    """L = -(R - V)_+ log pi (Eqs. 1-2), with the batch's advantage as R - V.

    Any baseline serves as V: a critic's value or a group's mean.

    Public code: the authors' (junhyukoh/self-imitation-learning) bounds the weight by 1, averages
    over the samples with R > V alone (here over all tokens), clips the logged -log pi at 5 without
    effect on the gradient, and draws by priority (R - V)_+, which is a buffer's work here. The
    critic's part of the loss is not included.
    """

    sources = ("1806.05635",)
    accepts_expert = True

    def __init__(self, config: SilConfig | None = None) -> None:
        super().__init__(config)
        self.needs = frozenset() if self.config.is_clip is None else frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        gain = batch.advantage.clamp(min=0, max=c.max_advantage)
        metrics = {"positive_fraction": (gain > 0).to(gain.dtype)}
        if c.is_clip is not None:
            own = mask & ~batch.expert[:, None]
            ratio = self.ratio(policy.logp.detach(), batch.behavior_logp, own)
            gain = gain * torch.where(own, ratio.clamp(max=c.is_clip), 1.0)
            metrics["ratio"] = ratio
        return policy_output(-gain * torch.where(mask, policy.logp, 0.0), mask, **metrics)
