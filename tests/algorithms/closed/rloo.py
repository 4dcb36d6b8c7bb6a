"""Closed-form gradient weights of the losses of algorithms/rloo.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped, length, log_ratio


def rloo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """rho A on every token of a response, undivided by its length, unless rho is clipped."""
    rho = log_ratio(logp, b.prox_logp, b).sum(-1, keepdim=True).exp()
    return length(b) * clipped(rho, b.advantage, 1 - c.clip_low, 1 + c.clip_high)


CLOSED: dict[str, Weights] = {
    "rloo": rloo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
