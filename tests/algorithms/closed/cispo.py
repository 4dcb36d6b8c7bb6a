"""Closed-form gradient weights of the losses of algorithms/cispo.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def cispo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return (logp - b.prox_logp).exp().clamp(max=1 + c.clip_high) * b.advantage


CLOSED: dict[str, Weights] = {
    "cispo": cispo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
