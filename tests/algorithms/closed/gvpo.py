"""Closed-form gradient weights of the losses of algorithms/gvpo.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, length, less_group_mean, moved, of_row


def gvpo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """Two groups of four: K / (K - 1) = 4/3."""
    pull = less_group_mean(c.beta * moved(logp, b.behavior_logp, b), b)
    return length(b) * c.beta * (of_row(b) - pull) * 4 / 3


def agro(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    pull = c.beta * moved(logp, b.anchor_logp["base"], b)
    return length(b) * c.beta * less_group_mean(of_row(b) - pull, b)


CLOSED: dict[str, Weights] = {
    "gvpo": gvpo,
    "agro": agro,
}
DENOMINATOR = {
    "gvpo": "behavior_logp",
    "agro": "anchor:base",
}
