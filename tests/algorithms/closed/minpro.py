"""Closed-form gradient weights of the losses of algorithms/minpro.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def minpro(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    ratio, weight = (logp - b.behavior_logp).exp(), torch.zeros_like(logp)
    for i, row in enumerate(b.mask):
        lowest = None
        for t in row.nonzero()[:, 0].tolist():
            before = c.first_prefix if lowest is None else lowest
            weight[i, t] = min(max(before * ratio[i, t], 1 - c.clip_low), 1 + c.clip_high)
            lowest = float(ratio[i, t]) if lowest is None else min(lowest, float(ratio[i, t]))
    return weight * b.advantage


CLOSED: dict[str, Weights] = {
    "minpro": minpro,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
