"""Closed-form gradient weights of the losses of algorithms/replayed.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def repo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """PPO's weight to behavior, times B / n: a row's mean is over the n rows of its part."""
    ratio = (logp - b.behavior_logp).exp()
    g = clipped(ratio, b.advantage, 1 - c.clip_low, 1 + c.clip_high)
    stored = b.replayed.tolist()
    rows = [stored.count(row) for row in stored]
    factor = torch.tensor([len(rows) / n for n in rows], dtype=torch.float64)
    return factor[:, None] * g


def spear(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    beyond = (b.advantage < 0) & ((logp - b.behavior_logp).exp() > c.dual_clip)
    return torch.where(beyond, 0.0, repo(logp, b, c))


CLOSED: dict[str, Weights] = {
    "repo": repo,
    "spear": spear,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
