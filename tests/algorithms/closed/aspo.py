"""Closed-form gradient weights of the losses of algorithms/aspo.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def aspo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """All entropies of the examples are equal, so none is above the quantile."""
    ratio, a = (logp - b.prox_logp).exp(), b.advantage
    good = torch.clamp(1 / ratio, max=c.dual_clip) * (ratio <= 1 + c.eps)
    bad = ratio * (ratio >= 1 - c.eps) * (ratio <= c.dual_clip)
    return torch.where(a > 0, good, bad) * a


CLOSED: dict[str, Weights] = {"aspo": aspo}
DENOMINATOR = {"aspo": "prox_logp"}
