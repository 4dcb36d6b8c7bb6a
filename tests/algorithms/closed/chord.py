"""Closed-form gradient weights of the losses of algorithms/chord.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def chord(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """1 - mu of PPO's weight: there are no demonstrations."""
    ratio = (logp - b.prox_logp).exp()
    return (1 - c.mu) * clipped(ratio, b.advantage, 1 - c.clip_low, 1 + c.clip_high)


CLOSED: dict[str, Weights] = {
    "chord": chord,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
