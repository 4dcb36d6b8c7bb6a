"""Closed-form gradient weights of the losses of algorithms/p3o.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def p3o(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """min(r, ESS) A - (1 - ESS) (1 - 1/r), the last factor being k3's slope."""
    r = (logp - b.behavior_logp).exp()
    valid = r[b.mask]
    ess = valid.sum() ** 2 / (len(valid) * (valid**2).sum())
    return torch.minimum(r, ess) * b.advantage - (1 - ess) * (1 - 1 / r)


CLOSED: dict[str, Weights] = {
    "p3o": p3o,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
