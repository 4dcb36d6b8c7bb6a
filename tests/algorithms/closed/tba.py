"""Closed-form gradient weights of the losses of algorithms/tba.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, length, less_group_mean, moved, of_row


def tba(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """A - beta (S - mean S), on each token of the response."""
    pull = less_group_mean(c.beta * moved(logp, b.anchor_logp["base"], b), b)
    return length(b) * (of_row(b) - pull)


CLOSED: dict[str, Weights] = {"tba": tba}
DENOMINATOR = {"tba": "anchor:base"}
