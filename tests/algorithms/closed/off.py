"""Closed-form gradient weights g of the explicitly off-policy losses: dL/dlogp = -share * g.

A loss with one value v_i a response, averaged over responses, has g_t = -T_i dv_i/dlogp_t, since
the share of its token is 1 / (B T_i).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def moved(logp: Tensor, other: Tensor, b: LossBatch) -> Tensor:
    """The responses' summed log-ratios [B, 1]."""
    return torch.where(b.mask, logp - other, 0.0).sum(-1, keepdim=True)


def length(b: LossBatch) -> Tensor:
    return b.mask.sum(-1, keepdim=True).double()


def of_row(b: LossBatch) -> Tensor:
    """The responses' advantages [B, 1], the same on each of their tokens."""
    return torch.where(b.mask, b.advantage, 0.0).sum(-1, keepdim=True) / length(b)


def less_group_mean(x: Tensor, b: LossBatch) -> Tensor:
    return torch.stack([row - x[b.group == g].mean(0) for row, g in zip(x, b.group, strict=True)])


def asymre(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return b.advantage


def opmd(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    pull = c.tau * moved(logp, b.behavior_logp, b)
    if c.variant == "simple":
        return b.advantage / (1 + c.tau)
    if c.variant == "kimi_token":
        return b.advantage - c.tau * (logp - b.behavior_logp)
    if c.variant == "kimi":
        return length(b) * (of_row(b) - pull)
    # d/dS of the group's variance: -2 tau (a - mean a) / K, with 1 / (groups K) = 1 / B
    return length(b) * 2 * c.tau * less_group_mean(of_row(b) - pull, b)


def oapl(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    gap = of_row(b) - c.beta2 * moved(logp, b.behavior_logp, b)
    return length(b) * 2 * c.beta2 * gap


def gvpo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """Two groups of four: K / (K - 1) = 4/3."""
    pull = less_group_mean(c.beta * moved(logp, b.behavior_logp, b), b)
    return length(b) * c.beta * (of_row(b) - pull) * 4 / 3


def agro(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    pull = c.beta * moved(logp, b.anchor_logp["base"], b)
    return length(b) * c.beta * less_group_mean(of_row(b) - pull, b)


def dro(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return b.advantage - c.beta * (logp - b.prox_logp)


def minpro(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    ratio, weight = (logp - b.behavior_logp).exp(), torch.zeros_like(logp)
    for i, row in enumerate(b.mask):
        lowest = None
        for t in row.nonzero()[:, 0].tolist():
            before = c.first_prefix if lowest is None else lowest
            weight[i, t] = min(max(before * ratio[i, t], 1 - c.clip_low), 1 + c.clip_high)
            lowest = float(ratio[i, t]) if lowest is None else min(lowest, float(ratio[i, t]))
    return weight * b.advantage


def decoupled_ppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    moved_on = (logp - b.prox_logp).exp()
    weight = (b.prox_logp - b.behavior_logp).exp()
    return weight * clipped(moved_on, b.advantage, 1 - c.clip_low, 1 + c.clip_high)


def bppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    up = (b.advantage > 0).to(logp.dtype)
    a = b.advantage * (c.omega * up + (1 - c.omega) * (1 - up))
    return clipped((logp - b.prox_logp).exp(), a, 1 - c.clip_low, 1 + c.clip_high)


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


def mix_ppg(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """The window's lower bound at 0 or below cuts nothing, clamped or not."""
    moves = c.centre == "prox"
    centre = (b.prox_logp - b.behavior_logp).exp() if moves else torch.ones_like(logp)
    ratio = (logp - b.behavior_logp).exp()
    return clipped(ratio, b.advantage, centre - c.epsilon, centre + c.epsilon)


def geppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """Uniform over M policies: unit weights, epsilon 2 / (M + 1)."""
    centre, ratio = (b.prox_logp - b.behavior_logp).exp(), (logp - b.behavior_logp).exp()
    epsilon = c.epsilon_ppo * 2 / (c.policies + 1)
    return clipped(ratio, b.advantage, centre - epsilon, centre + epsilon)


REC = (
    *("rec", "rec_oneside_is", "rec_oneside_nois", "rec_twoside_is", "rec_ring_is"),
    *("rec_ring_nois", "rec_gspo_is", "rec_gspo_nois", "rep_asymre", "rep_opmd"),
    *("red_weight", "red_drop"),
)

CLOSED: dict[str, Weights] = {
    **dict.fromkeys(REC, rec),
    **dict.fromkeys(("opmd", "opmd_simple", "opmd_pairwise", "opmd_kimi_token"), opmd),
    "asymre": asymre,
    "oapl": oapl,
    "gvpo": gvpo,
    "agro": agro,
    "dro": dro,
    "minpro": minpro,
    "decoupled_ppo": decoupled_ppo,
    "bppo": bppo,
    "geppo": geppo,
    "toppo": mix_ppg,
    "offpolicy_grpo": mix_ppg,
}

DENOMINATOR: dict[str, str] = dict.fromkeys(CLOSED, "behavior_logp") | {
    "agro": "anchor:base",
    "dro": "prox_logp",
    "decoupled_ppo": "prox_logp",
    "bppo": "prox_logp",
}
