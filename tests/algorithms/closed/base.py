"""What the closed forms share.

A closed form is the gradient weight g [B, T] of a loss, with dL/dlogp = -share * g; the example
batch has no demonstrations. A loss with one value v_i per response, averaged over responses, has
g_t = -T_i dv_i/dlogp_t, since the share of its token is 1 / (B T_i).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch

Weights = Callable[[Tensor, LossBatch, Any], Tensor]
"""Log-probs, batch and config -> g [B, T], with dL/dlogp = -share * g."""


def clipped(ratio: Tensor, a: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """r A, except 0 where A > 0 and r > high and where A < 0 and r < low."""
    return ratio * a * ~((a > 0) & (ratio > high)) * ~((a < 0) & (ratio < low))


def log_ratio(logp: Tensor, other: Tensor, b: LossBatch) -> Tensor:
    return torch.where(b.mask, logp - other, 0.0)


def moved(logp: Tensor, other: Tensor, b: LossBatch) -> Tensor:
    """The responses' summed log-ratios [B, 1]."""
    return torch.where(b.mask, logp - other, 0.0).sum(-1, keepdim=True)


def length(b: LossBatch) -> Tensor:
    return b.mask.sum(-1, keepdim=True).double()


def of_row(b: LossBatch) -> Tensor:
    """The responses' advantages [B, 1], the same on each of their tokens."""
    return torch.where(b.mask, b.advantage, 0.0).sum(-1, keepdim=True) / length(b)


def less_group_mean(x: Tensor, b: LossBatch) -> Tensor:
    return torch.stack([row - x[b.group == g].mean(0) for row, g in zip(x, b.group, strict=True)])
