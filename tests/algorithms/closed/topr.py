"""Closed-form gradient weights of the losses of algorithms/topr.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def topr(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """A where A > 0, min(1, product of the response's ratios) A where A < 0."""
    delta = torch.where(b.mask, logp - b.behavior_logp, 0.0)
    product = delta.sum(-1, keepdim=True).exp()
    return torch.where(b.advantage > 0, 1.0, product.clamp(max=1.0)) * b.advantage


CLOSED: dict[str, Weights] = {
    "topr": topr,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
