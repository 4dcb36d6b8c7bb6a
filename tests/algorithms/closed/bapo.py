"""Closed-form gradient weights of the losses of algorithms/bapo.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def bapo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """The search as Algorithm 1 and the authors' code loop, with bounds as whole steps."""
    ratio = (logp - b.behavior_logp).exp()
    r, a = ratio[b.mask], b.advantage[b.mask]
    w = b.behavior_logp[b.mask].exp() if c.prob_weight else torch.ones_like(r)
    i_low = i_high = 0
    n_low = round((c.c_low_max - c.c_low_start) / c.low_step)
    n_high = round((c.c_high_max - c.c_high_start) / c.high_step)
    while True:
        low, high = c.c_low_start + i_low * c.low_step, c.c_high_start + i_high * c.high_step
        p = (w * a * r.clamp(max=high))[a > 0].sum()
        q = (w * -a * r.clamp(min=low))[a < 0].sum()
        balance = p / (p + q) if c.metric == "fraction" else p / q
        if balance >= c.target or (i_low == n_low and i_high == n_high):
            break
        if c.order == "high_first":
            i_high, i_low = (i_high + 1, i_low) if i_high < n_high else (i_high, i_low + 1)
        else:
            i_high, i_low = (i_high, i_low + 1) if i_low < n_low else (i_high + 1, i_low)
    g = clipped(ratio, b.advantage, low, high)
    cap = torch.inf if c.dual_clip is None else c.dual_clip
    return g * ~((b.advantage < 0) & (ratio > cap))


CLOSED: dict[str, Weights] = {
    "bapo": bapo,
    "bapo_authors_repo": bapo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
