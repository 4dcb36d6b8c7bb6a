"""Closed-form gradient weights of the losses of algorithms/sppo.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def sppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    r = (logp - b.behavior_logp).exp()
    return b.advantage * ((r >= 1 / (1 + c.epsilon)) & (r <= 1 + c.epsilon))


CLOSED: dict[str, Weights] = {
    "sppo": sppo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
