"""Closed-form gradient weights of the losses of algorithms/sil.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def sil(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return b.advantage.clamp(min=0)


CLOSED: dict[str, Weights] = {
    "sil": sil,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
