"""Closed-form gradient weights of the losses of algorithms/hpt.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def hpt(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """PPO's weight: there are no demonstrations."""
    ratio = (logp - b.prox_logp).exp()
    return clipped(ratio, b.advantage, 1 - c.clip_low, 1 + c.clip_high)


CLOSED: dict[str, Weights] = {"hpt": hpt}
DENOMINATOR = {"hpt": "prox_logp"}
