"""Closed-form gradient weights of the losses of algorithms/oapl.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, length, moved, of_row


def oapl(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    gap = of_row(b) - c.beta2 * moved(logp, b.behavior_logp, b)
    return length(b) * 2 * c.beta2 * gap


CLOSED: dict[str, Weights] = {
    "oapl": oapl,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
