"""Closed-form gradient weights of the losses of algorithms/reinforce.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def reinforce(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return b.advantage


CLOSED: dict[str, Weights] = {
    "reinforce": reinforce,
    "gpg": reinforce,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
