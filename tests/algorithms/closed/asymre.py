"""Closed-form gradient weights of the losses of algorithms/asymre.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def asymre(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return b.advantage


CLOSED: dict[str, Weights] = {
    "asymre": asymre,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
