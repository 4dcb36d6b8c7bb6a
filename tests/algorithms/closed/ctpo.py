"""Closed-form gradient weights of the losses of algorithms/ctpo.py."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def ctpo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """R_t A, except 0 beyond the window of its position and the bound of negative advantages."""
    out = torch.zeros_like(logp)
    for i, row in enumerate(b.mask):
        total = 0.0
        for t, at in enumerate(row.nonzero()[:, 0].tolist(), start=1):
            total += float(logp[i, at] - b.prox_logp[i, at])
            a = float(b.advantage[i, at])
            beyond = total > c.clip_high * t**c.power
            short = total < -c.clip_low * t**c.power
            bounded = total > c.dual_clip * t**c.power
            if not (beyond if a > 0 else short or bounded):
                out[i, at] = math.exp(total) * a
    return out


CLOSED: dict[str, Weights] = {"ctpo": ctpo}
DENOMINATOR = {"ctpo": "prox_logp"}
