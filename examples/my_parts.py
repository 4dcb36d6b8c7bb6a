"""A policy loss, and a replay buffer that changes one method of a built-in one.

rlkit train plugins=[./examples/my_parts.py] loss=my_loss buffer=my_buffer loss.strength=0.5
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from buffers.fifo import Fifo
from rlkit.batch import Group, LossBatch, LossOutput, PolicyTerms, Term
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import register


class MyLossConfig(LossConfig):
    """Settings of my_loss: sweep them, override them, get a one-line error for a typo."""

    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Ratios above 1 + strength are cut to it."""


@register("loss", "my_loss")
class MyLoss(PolicyLoss[MyLossConfig]):
    """Truncated importance weights on REINFORCE: L = -sg[min(pi/mu, 1 + strength)] A log pi."""

    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        ratio = self.ratio(policy.logp, batch.behavior_logp, batch.mask).detach()
        weight = ratio.clamp(max=1 + self.config.strength)
        value = -weight * batch.advantage * torch.where(batch.mask, policy.logp, 0.0)
        clipped = (ratio > weight).to(ratio.dtype)
        return LossOutput(
            terms=[Term(name="policy", value=value, mask=batch.mask)],
            metrics={"ratio_mean": ratio, "ratio_max": ratio, "clip_fraction": clipped},
        )


@register("buffer", "my_buffer")
class MyBuffer(Fifo):
    """A FIFO buffer that keeps only groups with both right and wrong answers."""

    def add(self, fresh: list[Group], step: int) -> None:
        """Keep the groups whose rewards differ."""
        super().add([g for g in fresh if len({s.reward for s in g.samples}) > 1], step)
