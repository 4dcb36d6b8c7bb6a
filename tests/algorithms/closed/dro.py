"""Closed-form gradient weights of the losses of algorithms/dro.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def dro(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return b.advantage - c.beta * (logp - b.prox_logp)


CLOSED: dict[str, Weights] = {
    "dro": dro,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
