"""Closed-form gradient weights of the losses of algorithms/rec.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, length, moved


def rec(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    a, distance = b.advantage, logp - b.behavior_logp
    r, s = distance.exp(), (moved(logp, b.behavior_logp, b) / length(b)).exp()
    x = s if c.clip_mode.startswith("gspo") else r
    inside = (1 - c.clip_low <= x) & (x <= 1 + c.clip_high)
    outer = ((a >= 0) & (x <= 1 - c.clip_low_prime)) | ((a <= 0) & (x >= 1 + c.clip_high_prime))
    one_side = ~((a > 0) & (x > 1 + c.clip_high)) & ~((a < 0) & (x < 1 - c.clip_low))
    kept = {"none": torch.ones_like(one_side), "two-side": inside, "ring": inside | outer}
    weight = {
        "none": torch.ones_like(r),
        "importance_sampling": r,
        "gspo_importance_sampling": s,
        "advantage": (a / c.temp).exp(),
    }[c.weight]
    pull = {"none": 0 * r, "k2": 2 * distance, "forward-kl": -torch.ones_like(r)}[c.regularizer]
    return a * weight * kept.get(c.clip_mode, one_side) - c.regularizer_coef * pull


CLOSED: dict[str, Weights] = {
    "rec": rec,
    "rec_oneside_is": rec,
    "rec_oneside_nois": rec,
    "rec_twoside_is": rec,
    "rec_ring_is": rec,
    "rec_ring_nois": rec,
    "rec_gspo_is": rec,
    "rec_gspo_nois": rec,
    "rep_asymre": rec,
    "rep_opmd": rec,
    "red_weight": rec,
    "red_drop": rec,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
