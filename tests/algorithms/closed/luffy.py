"""Closed-form gradient weights of the losses of algorithms/luffy.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped
from tests.algorithms.closed.ppo import ppo


def ppo_within(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """LUFFY without demonstrations."""
    high = max(c.clip_upper_bound, 1 + c.clip_low)
    return clipped((logp - b.prox_logp).exp(), b.advantage, 1 - c.clip_low, high)


def exgrpo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """PPO's weight on new rows, on replayed ones beta w / (w + beta)^2 A."""
    w = (logp - b.behavior_logp).exp()
    shaped = c.shaping_beta * w / (w + c.shaping_beta) ** 2 * b.advantage
    return torch.where(b.replayed[:, None], shaped, ppo(logp, b, c))


CLOSED: dict[str, Weights] = {
    "luffy": ppo_within,
    "exgrpo": exgrpo,
}
DENOMINATOR = {
    "luffy": "prox_logp",
    "exgrpo": "behavior_logp",
}
