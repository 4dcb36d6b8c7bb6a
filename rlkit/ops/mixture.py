"""The share of each of the last policies in a batch that mixes their data (GePPO)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

TRUNCATION = 0.01
"""Optimal shares up to this size are dropped, as in the authors' code."""


def tilted(policies: int, tilt: float) -> tuple[float, ...]:
    """Shares that fall by `tilt` per policy, cut off at 0.

    This is -tilt * place, place = i + 1, projected on the simplex: with n shares above 0,
    nu_i = 1/n + tilt ((n + 1)/2 - place).
    """
    n = max(n for n in range(1, policies + 1) if tilt * n * (n - 1) <= 2)
    return tuple(max(0.0, 1 / n + tilt * ((n + 1) / 2 - i - 1)) for i in range(policies))


def mean_place(shares: Sequence[float]) -> float:
    """sum_i nu_i (i + 1): 1 when all data is fresh."""
    return sum(share * (i + 1) for i, share in enumerate(shares))


def _where(policies: int, tilt_of: Callable[[int, float], float]) -> float:
    """The tilt at which a statistic of the shares reaches its bound; 0 if no tilt is needed.

    `tilt_of(n, v)` is that tilt while n shares are above 0; their places have the sum of squares v
    around their mean.
    """
    tilt = 0.0
    for n in range(2, policies + 1):
        tilt = max(0.0, tilt_of(n, n * (n * n - 1) / 12))
        if tilt * n * (n + 1) >= 2:
            break
    return tilt


def steepest(policies: int, multiple: float) -> float:
    """The largest tilt with |nu|^2 <= 1 / multiple."""
    return _where(policies, lambda n, v: math.sqrt(max(0.0, 1 / multiple - 1 / n) / v))


def flattest(policies: int, multiple: float) -> float:
    """The smallest tilt with mean_place <= multiple."""
    return _where(policies, lambda n, v: ((n + 1) / 2 - multiple) / v)


@cache
def optimal_shares(policies: int, multiple: float, kappa: float) -> tuple[float, ...]:
    """GePPO's shares nu of the last policies, newest first.

        minimize    kappa |nu|^2 / s + (1 - kappa) sum_i nu_i (i + 1) / u
        subject to  sum nu = 1, nu >= 0, sum_i nu_i (i + 1) <= B, |nu|^2 <= 1/B

    B is `multiple`; s and u are the ranges of the two objectives, 1/B and B less their minima.
    Whatever the multipliers, stationarity makes nu the projection of -tilt * place, so the solution
    is the unconstrained tilt moved between the bounds that the two constraints set. Feasible for
    policies >= multiple >= 1. Shares up to TRUNCATION are dropped and the rest scaled to 1.
    """
    low, high = flattest(policies, multiple), steepest(policies, multiple)
    flat, steep = tilted(policies, low), tilted(policies, high)
    spread = 1 / multiple - sum(share**2 for share in flat)
    reach = multiple - mean_place(steep)
    # 2 kappa / spread * tilt = (1 - kappa) / reach
    numerator, denominator = (1 - kappa) * spread, 2 * kappa * reach
    free = numerator / denominator if denominator > 0 else math.inf
    shares = tilted(policies, max(low, min(high, free)))
    kept = [share if share > TRUNCATION else 0.0 for share in shares]
    return tuple(share / sum(kept) for share in kept)
