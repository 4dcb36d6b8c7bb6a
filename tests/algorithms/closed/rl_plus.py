"""Closed-form gradient weights of the losses of algorithms/rl_plus.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def own(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """RL-PLUS without demonstrations: the ratio without a clip."""
    return (logp - b.prox_logp).exp() * b.advantage


CLOSED: dict[str, Weights] = {"rl_plus": own}
DENOMINATOR = {"rl_plus": "prox_logp"}
