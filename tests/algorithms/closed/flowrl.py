"""Closed-form gradient weights of the losses of algorithms/flowrl.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, length, moved, of_row


def flowrl(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """-2 w (log Z + mean log(pi / ref) - beta A), where the examples have log Z = 0."""
    weight = moved(logp, b.prox_logp, b).exp().clamp(max=c.ratio_max)
    error = moved(logp, b.anchor_logp["base"], b) / length(b) - c.beta * of_row(b)
    return -2 * weight * error * b.mask


CLOSED: dict[str, Weights] = {"flowrl": flowrl}
DENOMINATOR = {"flowrl": "prox_logp"}
