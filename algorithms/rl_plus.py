"""RL-PLUS: demonstrations weighed against a mixture of policies (arXiv:2508.00222).

The policy that wrote a demonstration is unknown. RL-PLUS takes it as the mean of the policy before
the step and certainty, and divides by the mean of that and the policy before the step, so that the
weight stays bounded; tokens that the policy does not yet find likely count more:

    demonstrations   L = -2 pi / (prox + 1/2 (prox + 1)) A sqrt(1 - sg pi)
    own responses    L = -r A,  r = pi / prox, without a clip

Public code: agrees with the authors' (YihongDong/RL-PLUS, off_policy_strategy="RL-PLUS" with
loss_remove_clip), whose advantage subtracts the mean of the policy's own responses without the
standard deviation: advantage=group_mean advantage.demonstrations=left_out.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import register


class RlPlusConfig(LossConfig):
    """Settings of RL-PLUS."""

    explore: Annotated[float, Field(ge=0)] = 0.5
    """Exponent of (1 - pi), by which unlikely tokens of a demonstration count more."""


def mixture_ratio(logp: Tensor, old: Tensor) -> Tensor:
    """2 p / (q + (q + 1) / 2) with p = exp(logp) and q = exp(old); at most 4, [B, T]."""
    q = old.exp()
    return 2 * logp.exp() / (q + 0.5 * (q + 1))


@register("loss", "rl_plus")
class RLPlus(PolicyLoss[RlPlusConfig]):
    """Demonstrations: L = -2 pi / (prox + (prox + 1) / 2) A sqrt(1 - sg pi). Own: L = -r A."""

    sources = ("2508.00222",)
    needs = frozenset({"prox"})
    accepts_expert = True

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        mask, expert = batch.mask, batch.mask & batch.expert[:, None]
        ratio = self.ratio(policy.logp, batch.prox_logp, mask & ~expert)
        logp = torch.where(expert, policy.logp, 0.0)
        old = torch.where(expert, batch.prox_logp, 0.0)
        unlikely = -torch.expm1(logp.detach()).clamp(max=0)
        taught = mixture_ratio(logp, old) * unlikely**self.config.explore
        value = -torch.where(expert, taught, ratio) * batch.advantage
        return policy_output(value, mask, ratio=ratio)
