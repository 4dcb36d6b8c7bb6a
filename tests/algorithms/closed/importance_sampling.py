"""Closed-form gradient weights of the losses of algorithms/importance_sampling.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def importance_sampling(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return (logp - b.prox_logp).exp() * b.advantage


CLOSED: dict[str, Weights] = {
    "importance_sampling": importance_sampling,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
