"""Losses as numpy formulas with gradients by hand, derived from the papers and not from the parts.

A formula gives the value and the derivative with respect to the own log-prob of each token, [B, T],
or of each response. What is detached in a loss has no derivative here. `wrong` formulas are the
mistakes that are easily made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Settings = Mapping[str, Any]
Pair = tuple[Floats, Floats]
"""Values and derivatives."""


@dataclass(frozen=True)
class Batch:
    """Inputs of a record, [B, T] or [B]."""

    logp: Floats
    behavior: Floats
    prox: Floats
    ref: Floats
    teacher: Floats
    entropy: Floats
    mask: Bools
    advantage: Floats
    rewards: Floats
    group: NDArray[np.int64]
    age: NDArray[np.int64]
    expert: Bools
    replay_weight: Floats

    def apart(self, a: Floats, b: Floats) -> Floats:
        """a - b, 0 where masked."""
        return np.where(self.mask, a - b, 0.0)

    @property
    def token_advantage(self) -> Floats:
        """[B, T]."""
        return np.broadcast_to(self.advantage[:, None], self.mask.shape)


def clipped(
    ratio: Floats, a: Floats, low: Floats, high: Floats, dual: Floats | None = None
) -> tuple[Floats, Bools]:
    """PPO's surrogate by cases, and where the ratio is free."""
    free = np.where(a > 0, ratio <= high, ratio >= low)
    bound = np.where(a > 0, high, low)
    if dual is not None:
        over = (a < 0) & (ratio > dual)
        free, bound = free & ~over, np.where(over, dual, bound)
    value: Floats = -a * np.where(free, ratio, bound)
    return value, free & (a != 0)


def surrogate(ratio: Floats, b: Batch, eps: Floats, dual: float | None = None) -> Pair:
    """PPO's surrogate with one width, and its derivative -r A where the ratio is free."""
    bound = None if dual is None else np.full_like(ratio, dual)
    value, free = clipped(ratio, b.token_advantage, 1 - eps, 1 + eps, bound)
    return value, np.where(free, value, 0.0)


# ---- one value per token


def ctpo(b: Batch, c: Settings, wrong: str = "") -> Pair:
    """The product of the prefix's ratios, clipped to a window that grows with the position."""
    moved = b.apart(b.logp, b.prox)
    at = np.maximum(np.cumsum(b.mask, -1), 1)
    total = moved if wrong == "own ratio" else np.cumsum(moved, -1)
    if c.get("mean"):
        total = total / at
    window = np.ones_like(moved) if wrong == "fixed window" else at ** c["power"]
    ratio = np.exp(np.minimum(total, 10.0))
    dual = None if c["dual_clip"] is None else np.exp(c["dual_clip"] * window)
    low, high = np.exp(-c["clip_low"] * window), np.exp(c["clip_high"] * window)
    value, free = clipped(ratio, b.token_advantage, low, high, dual)
    slope = np.where(free & (total < 10.0), value, 0.0) * b.mask
    if wrong == "gradient through the prefix":
        slope = np.cumsum(slope[:, ::-1], -1)[:, ::-1]
    return value, slope


def wider(b: Batch, quantile: float | None, eps: float, uncertain: float) -> Floats:
    """ASPO's width of each token."""
    if quantile is None:
        return np.full(b.mask.shape, eps)
    bound = np.quantile(b.entropy[b.mask], quantile)
    return np.where(b.entropy > bound, uncertain, eps)


def aspo(b: Batch, c: Settings, wrong: str = "") -> Pair:
    """One sign of the advantage weighs 1/r up to a bound, the other is PPO's with dual clip."""
    ratio, a = np.exp(b.apart(b.logp, b.prox)), b.token_advantage
    eps = wider(b, c["entropy_quantile"], 0.2, 0.4)
    value, slope = surrogate(ratio, b, eps, 3.0)
    weight = np.minimum(1 / ratio, 3.0)
    out = np.where(a > 0, ratio > 1 + eps, ratio < 1 - eps)
    if wrong == "hard bound":
        out = out | (1 / ratio > 3.0)
    positive = (c["inverted"] == "positive") != (wrong == "other sign")
    turned = a > 0 if positive else a < 0
    return (
        np.where(turned, -weight * a, value),
        np.where(turned, np.where(out, 0.0, -weight * a), slope),
    )


def rl_plus(b: Batch, c: Settings, wrong: str = "") -> Pair:
    """Demonstrations over the mixture of the old policy and certainty; the rest is -r A."""
    a, shown = b.token_advantage, b.expert[:, None] & b.mask
    own = -a * np.exp(b.apart(b.logp, b.prox))
    p, q = np.exp(b.logp * shown), np.exp(b.prox * shown)
    unlikely = np.maximum(1 - p, 0.0) ** c["explore"]
    below = q if wrong == "old policy alone" else (q + 0.5 * (q + 1)) / 2
    value = np.where(shown, -a * p / below * unlikely, own)
    slope = value.copy()
    if wrong == "gradient through the exploration":
        inner = value - value * c["explore"] * p / np.maximum(1 - p, 1e-9)
        slope = np.where(shown, inner, own)
    return value, slope


def trapo(b: Batch, c: Settings, wrong: str = "") -> Pair:
    """Demonstrations weigh p / max(sg p, floor); the rest is PPO's."""
    a, shown = b.token_advantage, b.expert[:, None] & b.mask
    own, slope = surrogate(np.exp(b.apart(b.logp, b.prox)), b, np.full(a.shape, 0.2))
    p = np.exp(b.logp * shown)
    taught = -a * p / np.maximum(p, c["floor"])
    taught_slope = taught
    if wrong == "floor not detached":
        taught_slope = np.where(p > c["floor"], 0.0, taught)
    if wrong == "likelihood":
        taught = taught_slope = -a * p
    return np.where(shown, taught, own), np.where(shown, taught_slope, slope)


def a3po(b: Batch, c: Settings, wrong: str = "") -> Pair:
    """Clipped around a point between the two policies, times the weight to the one that sampled."""
    moved = b.apart(b.logp, b.behavior)
    share = (b.age / (b.age + 1))[:, None]
    if wrong == "share of the policy and of behavior swapped":
        share = 1 - share
    if c["interpolation"] == "log":
        weight = np.exp(share * moved)
    else:
        weight = (1 - share) + share * np.exp(moved)
    value, slope = surrogate(np.exp(moved) / weight, b, np.full(moved.shape, 0.2))
    if wrong == "prox not detached":
        slope = slope * (1 - share)
    return weight * value, weight * slope


def mopd(b: Batch, c: Settings, wrong: str = "") -> Pair:
    """-r A with A of `mopd_advantage`."""
    value = -np.exp(b.apart(b.logp, b.prox)) * mopd_advantage(b, c, wrong)
    return value, value


def mopd_advantage(b: Batch, c: Settings, wrong: str = "") -> Floats:
    """log teacher - log student times the weight to the policy that sampled, within a window."""
    weight = np.exp(b.apart(b.prox, b.behavior))
    distance = b.apart(b.teacher, b.behavior if wrong == "behavior as student" else b.prox)
    if wrong == "no weight":
        return distance
    if wrong == "weight cut to the window":
        return distance * np.clip(weight, c["is_min"], c["is_max"])
    return distance * np.where((weight >= c["is_min"]) & (weight <= c["is_max"]), weight, 0.0)


# ---- corrections of PPO's surrogate: value, derivative and the mask that is left


def trm(b: Batch, c: Settings, wrong: str = "") -> tuple[Floats, Floats, Bools]:
    """A response leaves if its worst token diverges by more than delta."""
    moved = b.apart(b.prox, b.behavior)
    each = moved**2 / 2 if c["trm_estimator"] == "k2" else np.exp(moved) - 1 - moved
    worst = np.where(b.mask, each, 0.0).max(-1)
    if wrong == "mean":
        worst = (each * b.mask).sum(-1) / np.maximum(b.mask.sum(-1), 1)
    kept = (worst <= c["trm_delta"])[:, None]
    value, slope = surrogate(np.exp(b.apart(b.logp, b.prox)), b, np.full(moved.shape, 0.2))
    left = b.mask if wrong == "denominator kept" else b.mask & kept
    return value * kept, slope * kept, left


def veto(b: Batch, c: Settings, wrong: str = "") -> tuple[Floats, Floats, Bools]:
    """Negative responses: nothing after the first token the policy has abandoned."""
    hit = np.exp(b.apart(b.logp, b.behavior)) < c["veto_threshold"]
    before = np.cumsum(hit, -1) - (0 if wrong == "the token too" else hit)
    gone = (before > 0) & ((b.token_advantage < 0) | (wrong == "positive too"))
    moved = b.apart(b.logp, b.prox)
    value, slope = surrogate(np.exp(moved), b, np.full(moved.shape, 0.2))
    return value * ~gone, slope * ~gone, b.mask


def replay_weight(b: Batch, c: Settings, wrong: str = "") -> tuple[Floats, Floats, Bools]:
    """Each response weighs what its buffer gave it; those that were given nothing weigh 1."""
    weight = np.where(b.replay_weight > 0, b.replay_weight, 1.0)
    if wrong == "normalized":
        weight = weight / weight.mean()
    if wrong == "nothing for fresh ones":
        weight = b.replay_weight
    moved = b.apart(b.logp, b.prox)
    value, slope = surrogate(np.exp(moved), b, np.full(moved.shape, 0.2))
    return value * weight[:, None], slope * weight[:, None], b.mask


# ---- one value per response: value [B] and its derivative with respect to each token [B, T]


def means(x: Floats, b: Batch) -> Floats:
    """The mean over a row's group, of rows with a token."""
    live = np.asarray(b.mask.any(-1))
    same = (b.group[:, None] == b.group[None]) & live[None]
    found: Floats = (same * x[None]).sum(-1) / np.maximum(same.sum(-1), 1)
    return found


def tba(b: Batch, c: Settings, wrong: str = "") -> Pair:
    """Half the squared imbalance over beta, or each token's ratio times it."""
    total = b.apart(b.logp, b.ref).sum(-1)
    pull = total - means(total, b)
    if wrong == "sign of the divergence":
        pull = -pull
    if wrong == "no partition function":
        pull = total
    error = c["beta"] * pull - b.advantage
    if c["ratio_max"] is None:
        return error**2 / (2 * c["beta"]), np.where(b.mask, error[:, None], 0.0)
    ratio = np.exp(b.apart(b.logp, b.behavior))
    cut = np.minimum(ratio, c["ratio_max"]) * b.mask
    free = (ratio <= c["ratio_max"]) | (wrong == "a cut token learns")
    return (cut * error[:, None]).sum(-1), cut * free * error[:, None]


def qrpo(b: Batch, c: Settings, wrong: str = "") -> Pair:
    """The squared distance of the quantile from its optimum's."""
    same = b.group[:, None] == b.group[None]
    below = b.rewards[None] < b.rewards[:, None]
    if wrong != "strictly below":
        below = below | (b.rewards[None] == b.rewards[:, None])
    quantile = (same & below).sum(-1) / same.sum(-1)
    known = np.log(c["beta"]) + 1 / c["beta"]
    if wrong == "no logarithm of beta":
        known = 1 / c["beta"]
    error = quantile - c["beta"] * known - c["beta"] * b.apart(b.logp, b.ref).sum(-1)
    return error**2, np.where(b.mask, -2 * c["beta"] * error[:, None], 0.0)


def lr_factor(b: Batch, base: float, wrong: str = "") -> float:
    """sqrt(min(1, rho / base)), rho the effective sample size of whole responses over B."""
    live = b.mask.any(-1) & ~b.expert
    weight = np.exp(b.apart(b.logp, b.behavior).sum(-1))[live]
    if wrong == "ratios of tokens":
        weight = np.exp((b.logp - b.behavior)[b.mask & live[:, None]])
    rho = weight.sum() ** 2 / (len(weight) * (weight**2).sum())
    factor = min(1.0, rho / base)
    return float(factor if wrong == "no root" else factor**0.5)
