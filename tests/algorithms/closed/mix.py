"""Closed-form gradient weights of losses on minibatch statistics, other data and pairs.

g [B, T] with dL/dlogp = -share * g; the example batch has no demonstrations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.ops import hash_uniform
from tests.algorithms.closed.base import Weights, clipped
from tests.algorithms.closed.first import ppo


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


def gepo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """w A of the response on each of its tokens, 0 where the clip holds."""
    lengths = b.mask.sum(-1)
    p, q = (((x * b.mask).sum(-1) / lengths).exp() for x in (logp, b.behavior_logp))
    weight = torch.zeros_like(p)
    for group in b.group.unique():
        rows = b.group == group
        weight[rows] = p[rows] * q[rows].sum() / (q[rows] ** 2).sum()
    return clipped(weight[:, None], b.advantage, 1 - c.clip_low, 1 + c.clip_high)


def p3o(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """min(r, ESS) A - (1 - ESS) (1 - 1/r), the last factor being k3's slope."""
    r = (logp - b.behavior_logp).exp()
    valid = r[b.mask]
    ess = valid.sum() ** 2 / (len(valid) * (valid**2).sum())
    return torch.minimum(r, ess) * b.advantage - (1 - ess) * (1 - 1 / r)


def ppo_within(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """LUFFY without demonstrations."""
    high = max(c.clip_upper_bound, 1 + c.clip_low)
    return clipped((logp - b.prox_logp).exp(), b.advantage, 1 - c.clip_low, high)


def chord(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """1 - mu of PPO's weight: there are no demonstrations."""
    ratio = (logp - b.prox_logp).exp()
    return (1 - c.mu) * clipped(ratio, b.advantage, 1 - c.clip_low, 1 + c.clip_high)


def exgrpo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """PPO's weight where age is 0, elsewhere beta w / (w + beta)^2 A."""
    w = (logp - b.behavior_logp).exp()
    shaped = c.shaping_beta * w / (w + c.shaping_beta) ** 2 * b.advantage
    return torch.where((b.age == 0)[:, None], ppo(logp, b, c), shaped)


def repo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """PPO's weight to behavior, times B / n: a row's mean is over the n rows of its part."""
    ratio = (logp - b.behavior_logp).exp()
    g = clipped(ratio, b.advantage, 1 - c.clip_low, 1 + c.clip_high)
    ages = b.age.tolist()
    rows = [sum((other == 0) == (age == 0) for other in ages) for age in ages]
    factor = torch.tensor([len(rows) / n for n in rows], dtype=torch.float64)
    return factor[:, None] * g


def spear(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    beyond = (b.advantage < 0) & ((logp - b.behavior_logp).exp() > c.dual_clip)
    return torch.where(beyond, 0.0, repo(logp, b, c))


def sft(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return torch.ones_like(logp)


def sil(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return b.advantage.clamp(min=0)


def pairs(logp: Tensor, b: LossBatch, c: Any) -> list[tuple[int, int, float, float]]:
    """Chosen and rejected row of each group, their margin, and the share of votes for the chosen.

    Of equal rewards the one with the largest hash of its reference log-prob.
    """
    ref = (b.anchor_logp["base"] * b.mask).sum(-1)
    score = (logp * b.mask).sum(-1) - ref
    found = []
    for group in b.group.unique():
        rows = (b.group == group).nonzero()[:, 0].tolist()
        rewards = [float(b.reward[i]) for i in rows]
        ends = []
        for end in (max(rewards), min(rewards)):
            tied = [i for i, reward in zip(rows, rewards, strict=True) if reward == end]
            ends.append((max(tied, key=lambda i: float(hash_uniform(ref[i]))), end))
        (w, v_w), (l, v_l) = ends  # noqa: E741
        prior = getattr(c, "prior", 0.0)
        share = (v_w + prior) / (v_w + v_l + 2 * prior)
        found.append((w, l, float(score[w] - score[l]), share))
    return found


def on_pairs(slope: Any) -> Weights:
    """-dL/dh of each pair on its rows: its share is 1 / pairs, where a row's is 1 / (B T_i)."""

    def weights(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
        g, found = torch.zeros_like(logp), pairs(logp, b, c)
        per_row = len(b.mask) * b.mask.double().sum(-1) / len(found)
        for chosen, rejected, margin, share in found:
            fall = -slope(torch.tensor(margin, dtype=torch.float64), share, c.beta)
            g[chosen], g[rejected] = fall * per_row[chosen], -fall * per_row[rejected]
        return g

    return weights


dpo = on_pairs(lambda h, p, beta: -beta * torch.sigmoid(-beta * h))
vdpo = on_pairs(lambda h, p, beta: beta * (torch.sigmoid(beta * h) - p))
vipo = on_pairs(lambda h, p, beta: 2 * (h - (2 * p - 1) / (2 * beta)))

CLOSED: dict[str, Weights] = {
    "m2po": m2po,
    "m2po_authors_repo": m2po_authors_repo,
    "m2po_areal": m2po_areal,
    "gepo": gepo,
    "p3o": p3o,
    "luffy": ppo_within,
    "chord": chord,
    "exgrpo": exgrpo,
    "repo": repo,
    "spear": spear,
    "sft": sft,
    "sil": sil,
    "online_dpo": dpo,
    "vdpo": vdpo,
    "vipo": vipo,
}

DENOMINATOR = {
    "m2po": "behavior_logp",
    "m2po_authors_repo": "behavior_logp",
    "m2po_areal": "prox_logp",
    "gepo": "behavior_logp",
    "p3o": "behavior_logp",
    "luffy": "prox_logp",
    "chord": "prox_logp",
    "exgrpo": "behavior_logp",
    "repo": "behavior_logp",
    "spear": "behavior_logp",
    "sft": "behavior_logp",
    "sil": "behavior_logp",
    "online_dpo": "anchor:base",
    "vdpo": "anchor:base",
    "vipo": "anchor:base",
}
