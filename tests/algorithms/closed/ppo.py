"""Closed-form gradient weights of the losses of algorithms/ppo.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def ppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return clipped((logp - b.prox_logp).exp(), b.advantage, 1 - c.clip_low, 1 + c.clip_high)


CLOSED: dict[str, Weights] = {
    "ppo": ppo,
    "grpo": ppo,
    "dr_grpo": ppo,
    "dapo": ppo,
    "reinforce_pp": ppo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
