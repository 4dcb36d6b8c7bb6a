"""Closed-form gradient weights of the losses of algorithms/covariance.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.ops import hash_uniform
from tests.algorithms.closed.base import Weights
from tests.algorithms.closed.ppo import ppo


def covariance(logp: Tensor, b: LossBatch) -> Tensor:
    a, p = b.advantage, logp
    return (a - a[b.mask].mean()) * (p - p[b.mask].mean())


def clip_cov(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """PPO's weight, but 0 at the one eligible token of smallest hash (2e-4 of 30 tokens is one)."""
    g, cov = ppo(logp, b, c), covariance(logp, b)
    r = (logp - b.prox_logp).exp()
    free = torch.where(b.advantage > 0, r <= 1 + c.clip_high, r >= 1 - c.clip_low)
    eligible = b.mask & free & (cov > c.clip_cov_lb) & (cov < c.clip_cov_ub)
    if not eligible.any():
        return g
    drawn = torch.where(eligible, hash_uniform(logp), 2.0)
    return torch.where(drawn == drawn.min(), 0.0, g)


def kl_cov(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """r A, and -kl_coef sign(log r) more at the one token of largest covariance."""
    delta, cov = logp - b.prox_logp, torch.where(b.mask, covariance(logp, b), -torch.inf)
    return delta.exp() * b.advantage - c.kl_coef * delta.sign() * (cov == cov.max())


CLOSED: dict[str, Weights] = {
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
