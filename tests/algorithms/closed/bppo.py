"""Closed-form gradient weights of the losses of algorithms/bppo.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def bppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    up = (b.advantage > 0).to(logp.dtype)
    a = b.advantage * (c.omega * up + (1 - c.omega) * (1 - up))
    return clipped((logp - b.prox_logp).exp(), a, 1 - c.clip_low, 1 + c.clip_high)


CLOSED: dict[str, Weights] = {
    "bppo": bppo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
