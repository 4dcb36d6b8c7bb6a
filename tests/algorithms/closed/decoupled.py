"""Closed-form gradient weights of the losses of algorithms/decoupled.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def decoupled_ppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    moved_on = (logp - b.prox_logp).exp()
    weight = (b.prox_logp - b.behavior_logp).exp()
    return weight * clipped(moved_on, b.advantage, 1 - c.clip_low, 1 + c.clip_high)


CLOSED: dict[str, Weights] = {
    "decoupled_ppo": decoupled_ppo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
