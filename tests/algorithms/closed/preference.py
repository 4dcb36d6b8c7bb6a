"""Closed-form gradient weights of the losses of algorithms/preference.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def pairs(logp: Tensor, b: LossBatch, c: Any) -> list[tuple[int, int, float, float]]:
    """Chosen and rejected row of each group, their margin, and the share of votes for the chosen.

    Of equal rewards the first is chosen and the last rejected.
    """
    ref = (b.anchor_logp["base"] * b.mask).sum(-1)
    score = (logp * b.mask).sum(-1) - ref
    found = []
    for group in b.group.unique():
        rows = (b.group == group).nonzero()[:, 0].tolist()
        rewards = [float(b.reward[i]) for i in rows]
        ends = []
        for end, place in ((max(rewards), 0), (min(rewards), -1)):
            tied = [i for i, reward in zip(rows, rewards, strict=True) if reward == end]
            ends.append((tied[place], end))
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


vdpo = on_pairs(lambda h, p, beta: beta * (torch.sigmoid(beta * h) - p))


vipo = on_pairs(lambda h, p, beta: 2 * (h - (2 * p - 1) / (2 * beta)))


CLOSED: dict[str, Weights] = {
    "vdpo": vdpo,
    "vipo": vipo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "anchor:base")
