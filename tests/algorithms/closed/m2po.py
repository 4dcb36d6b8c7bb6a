"""Closed-form gradient weights of the losses of algorithms/m2po.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def m2po(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """r A, less the largest (log r)^2 of the trust region, one by one until the mean fits."""
    delta = logp - b.behavior_logp
    trusted = b.mask & (((b.advantage > 0) & (delta > 0)) | ((b.advantage < 0) & (delta < 0)))
    squares = {tuple(at): float(delta[tuple(at)] ** 2) for at in trusted.nonzero().tolist()}
    g = delta.exp() * b.advantage
    while squares and sum(squares.values()) / len(squares) > c.m2_threshold:
        worst = max(squares, key=lambda at: squares[at])
        g[worst] = 0.0
        del squares[worst]
    return g


def m2po_authors_repo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """PPO's weight; the bounds are e^-tau and e^tau, never tighter than the two minima."""
    delta = torch.where(b.mask, logp - b.behavior_logp, 0.0)
    squares = sorted((delta[delta * b.advantage > 0] ** 2).tolist())
    n, tau = len(squares), torch.inf
    if sum(squares) / n > c.m2_threshold:
        reached = [
            k
            for k in range(n)
            if sum(squares[: k + 1]) + (n - k - 1) * squares[k] >= c.m2_threshold * n
        ]
        tau = squares[reached[0] - 1] ** 0.5 if reached[0] else 0.0
    radius = torch.tensor(tau, dtype=torch.float64)
    low = (-radius).exp().clamp(max=1 - c.clip_low_min)
    high = radius.exp().clamp(min=1 + c.clip_high_min)
    return clipped(delta.exp(), b.advantage, low - 1e-12, high + 1e-12)


def m2po_areal(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """PPO's weight over the tokens that stay, which the mean is over."""
    squares = (b.behavior_logp - b.prox_logp) ** 2
    order = sorted(b.mask.nonzero().tolist(), key=lambda at: float(squares[tuple(at)]))
    kept = torch.zeros_like(b.mask)
    total = 0.0
    for count, at in enumerate(order, start=1):
        total += float(squares[tuple(at)])
        if total / count < c.m2_threshold or count == 1:
            kept[tuple(at)] = True
    g = clipped((logp - b.prox_logp).exp(), b.advantage, 1 - c.clip_low, 1 + c.clip_high)
    return g * kept * (b.mask.double().sum() / kept.sum())


CLOSED: dict[str, Weights] = {
    "m2po": m2po,
    "m2po_authors_repo": m2po_authors_repo,
    "m2po_areal": m2po_areal,
}
DENOMINATOR = {
    "m2po": "behavior_logp",
    "m2po_authors_repo": "behavior_logp",
    "m2po_areal": "prox_logp",
}
