"""Closed-form gradient weights of the losses of algorithms/gspo.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped, length, log_ratio


def gspo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """s A / T on every token: 1 / T is in GSPO's share, and LUSPO's factor T takes it away."""
    s = (log_ratio(logp, b.prox_logp, b).sum(-1, keepdim=True) / length(b)).exp()
    return clipped(s, b.advantage, 1 - c.clip_low, 1 + c.clip_high)


CLOSED: dict[str, Weights] = {
    "gspo": gspo,
    "luspo": gspo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
