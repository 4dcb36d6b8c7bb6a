"""Closed-form gradient weight of the loss of algorithms/spear_cov.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.ops import hash_uniform
from tests.algorithms.closed.base import Weights
from tests.algorithms.closed.replayed import repo


def spear_cov(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """RePO's weight, 0 at one eligible token of each objective (0.02 of fewer than 50 is one)."""
    g, ratio = repo(logp, b, c), (logp - b.behavior_logp).exp()
    free = torch.where(b.advantage > 0, ratio <= 1 + c.clip_high, ratio >= 1 - c.clip_low)
    for part in (~b.replayed[:, None], b.replayed[:, None]):
        own = b.mask & part
        cov = (b.advantage - b.advantage[own].mean()) * (logp - logp[own].mean())
        eligible = own & free & (cov > c.clip_cov_lb) & (cov < c.clip_cov_ub)
        if eligible.any():
            drawn = torch.where(eligible, hash_uniform(logp), 2.0)
            g = torch.where(drawn == drawn.min(), 0.0, g)
    return g


CLOSED: dict[str, Weights] = {"spear_cov": spear_cov}
DENOMINATOR = {"spear_cov": "behavior_logp"}
