"""Closed-form gradient weights of the losses of algorithms/gepo.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def gepo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """w A of the response on each of its tokens, 0 where the clip holds."""
    lengths = b.mask.sum(-1)
    p, q = (((x * b.mask).sum(-1) / lengths).exp() for x in (logp, b.behavior_logp))
    weight = torch.zeros_like(p)
    for group in b.group.unique():
        rows = b.group == group
        weight[rows] = p[rows] * q[rows].sum() / (q[rows] ** 2).sum()
    return clipped(weight[:, None], b.advantage, 1 - c.clip_low, 1 + c.clip_high)


CLOSED: dict[str, Weights] = {
    "gepo": gepo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
