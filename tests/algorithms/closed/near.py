"""Closed-form gradient weights g of the on-policy and near-policy losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.ops import hash_uniform
from tests.algorithms.closed.base import Weights, clipped
from tests.algorithms.closed.first import ppo


def log_ratio(logp: Tensor, other: Tensor, b: LossBatch) -> Tensor:
    return torch.where(b.mask, logp - other, 0.0)


def lengths(b: LossBatch) -> Tensor:
    return b.mask.sum(-1, keepdim=True)


def reinforce(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return b.advantage


def importance_sampling(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return (logp - b.prox_logp).exp() * b.advantage


def rloo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """rho A on every token of a response, undivided by its length, unless rho is clipped."""
    rho = log_ratio(logp, b.prox_logp, b).sum(-1, keepdim=True).exp()
    return lengths(b) * clipped(rho, b.advantage, 1 - c.clip_low, 1 + c.clip_high)


def cispo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return (logp - b.prox_logp).exp().clamp(max=1 + c.clip_high) * b.advantage


def gspo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """s A / T on every token: 1 / T is in GSPO's share, and LUSPO's factor T takes it away."""
    s = (log_ratio(logp, b.prox_logp, b).sum(-1, keepdim=True) / lengths(b)).exp()
    return clipped(s, b.advantage, 1 - c.clip_low, 1 + c.clip_high)


def gmpo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    delta = log_ratio(logp, b.prox_logp, b)
    good, bad = b.advantage > 0, b.advantage < 0
    held = torch.where(good, delta.clamp(max=c.clip_high), delta.clamp(min=-c.clip_low))
    mean = (held * b.mask).sum(-1, keepdim=True) / lengths(b)
    cut = (good & (delta > c.clip_high)) | (bad & (delta < -c.clip_low))
    return b.advantage * mean.exp() * ~cut


def sapo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    r = (logp - b.prox_logp).exp()
    tau = torch.where(b.advantage > 0, torch.tensor(c.tau_pos).to(r), c.tau_neg)
    p = 1 / (1 + (-tau * (r - 1)).exp())
    return 4 * p * (1 - p) * r * b.advantage


def vespo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    w = log_ratio(logp, b.prox_logp, b).sum(-1, keepdim=True).exp()
    good = w**c.k_pos * (c.lambda_pos * (1 - w)).exp()
    bad = w**c.k_neg * (c.lambda_neg * (1 - w)).exp()
    return torch.where(b.advantage >= 0, good, bad) * b.advantage


def dppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    pi, mu = logp.exp().clamp(max=1 - 1e-8), b.behavior_logp.exp().clamp(max=1 - 1e-8)
    up, down = b.advantage > 0, b.advantage < 0
    if c.divergence == "tv":
        dropped = (up & (pi - mu > c.delta_high)) | (down & (mu - pi > c.delta_low))
    elif c.divergence == "ipo":
        dropped = (pi - mu).abs() > c.delta_high
    else:
        kl = mu * (mu / pi).log() + (1 - mu) * ((1 - mu) / (1 - pi)).log()
        dropped = (up & (pi > mu) & (kl > c.delta_high)) | (down & (pi < mu) & (kl > c.delta_low))
    delta = logp - b.behavior_logp
    return delta.exp() * b.advantage * ~dropped - 2 * c.log_ratio_sq_coef * delta


def sppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    r = (logp - b.behavior_logp).exp()
    return b.advantage * ((r >= 1 / (1 + c.epsilon)) & (r <= 1 + c.epsilon))


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
    "reinforce": reinforce,
    "gpg": reinforce,
    "importance_sampling": importance_sampling,
    "reinforce_pp": ppo,
    "rloo": rloo,
    "cispo": cispo,
    "gspo": gspo,
    "luspo": gspo,
    "gmpo": gmpo,
    "sapo": sapo,
    "vespo": vespo,
    "dppo": dppo,
    "dppo_kl": dppo,
    "dppo_ipo": dppo,
    "sppo": sppo,
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
}

TO_BEHAVIOR = {"reinforce", "gpg", "dppo", "dppo_kl", "dppo_ipo", "sppo"}
DENOMINATOR = {name: "behavior_logp" if name in TO_BEHAVIOR else "prox_logp" for name in CLOSED}
