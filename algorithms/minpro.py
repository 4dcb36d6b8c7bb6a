"""MinPRO: the minimum of the prefix as the off-policy weight (arXiv:2601.22718).

The exact correction of a token is the product of the ratios of its whole prefix, whose variance
explodes. MinPRO keeps the prefix's smallest ratio instead:

    w_t = sg clip(min_{j<t} r_j * r_t, 1 - clip_low, 1 + clip_high),   r = pi / behavior
    L = -w A log pi                                                     (CISPO's form, token mean)

Use it with advantage=group_norm. Masked tokens are no part of a prefix.

Public code: none was found. The clip widths and the weight of the first token, whose prefix is
empty, are unconfirmed; both are settings.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import masked_log_ratio
from rlkit.registry import register


class MinproConfig(LossConfig):
    """Settings of MinPRO."""

    clip_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    """The weight is at least 1 - clip_low. The paper's value is unconfirmed."""
    clip_high: Annotated[float, Field(gt=0)] = 0.28
    """The weight is at most 1 + clip_high. The paper's value is unconfirmed."""
    first_prefix: Annotated[float, Field(gt=0)] = 1.0
    """The prefix minimum of a response's first token, whose prefix is empty; 1 is an assumption."""


def prefix_minimum(log_ratio: Tensor, mask: Tensor, first: float) -> Tensor:
    """min_{j<t} of the valid log-ratios before each position [B, T]; `first` if there is none."""
    lowest = torch.where(mask, log_ratio, torch.inf).cummin(-1).values
    before = torch.cat([torch.full_like(lowest[:, :1], torch.inf), lowest[:, :-1]], dim=-1)
    return before.masked_fill(before.isinf(), first)


@register("loss", "minpro")
class MinPRO(PolicyLoss[MinproConfig]):
    """L = -sg[clip(min_{j<t} r_j r_t, 1 - clip_low, 1 + clip_high)] A log pi."""

    sources = ("2601.22718",)
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        log_ratio = masked_log_ratio(
            policy.logp.detach(), batch.behavior_logp, mask, c.log_ratio_clamp
        )
        free = (prefix_minimum(log_ratio, mask, math.log(c.first_prefix)) + log_ratio).exp()
        weights = free.clamp(1 - c.clip_low, 1 + c.clip_high)
        value = -weights * batch.advantage * torch.where(mask, policy.logp, 0.0)
        return policy_output(
            value,
            mask,
            ratio=log_ratio.exp(),
            weights=weights,
            clip_fraction=(weights != free).to(free.dtype),
        )
