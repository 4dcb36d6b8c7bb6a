"""Means over problems or seeds with an interval: the bootstrap that every score uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL, DRAWS = 0.95, 2_000
BLOCK = 4_000_000
"""Drawn indices held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean, its standard error, and an interval at the level it was asked for."""

    value: float
    error: float
    """s / sqrt(n), where s is the sample's standard deviation; 0 for a single value."""
    low: float
    high: float
    n: int
    """How many problems (or seeds) it is a mean of."""

    @property
    def distinguishable(self) -> bool:
        """Whether 0 lies outside the interval: for a difference, that it is more than chance."""
        return self.low > 0 or self.high < 0


def mean_interval(
    values: Sequence[float], *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """The mean of independent values and its percentile bootstrap interval.

    The values are what varies independently: one per problem (the mean of its samples, so that the
    samples of a problem are drawn together, a cluster bootstrap) or one per seed. The interval is
    the (1 - level) / 2 and (1 + level) / 2 quantiles of the means of `draws` samples of n values
    with replacement (Efron 1979). The same values, level, draws and seed give the same interval.
    A single value has the interval [value, value]: nothing is known of its spread.

    Raises ValueError if there are no values.
    """
    if not len(values):
        raise ValueError("no values: a mean needs at least one")
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    mean = float(x.mean())
    error = float(x.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    means = _drawn_means(x, draws, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=mean, error=error, low=float(low), high=float(high), n=n)


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """The mean of second - first over the same problems or seeds, with its interval.

    Pairs are drawn together, so what both have in common (a hard problem, a lucky seed) cancels.

    Raises ValueError if the two differ in length or are empty.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values cannot be paired")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    return mean_interval(differences, level=level, draws=draws, seed=seed)


def unpaired_difference(
    first: Sequence[float],
    second: Sequence[float],
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """mean(second) - mean(first) of independent values, with its bootstrap interval.

    Each side is drawn by itself; the error is sqrt(error_1^2 + error_2^2), and n the smaller of the
    two. For values over the same problems or seeds `paired_difference` is narrower.

    Raises ValueError if one of them is empty.
    """
    sides = [mean_interval(side, level=level, draws=1) for side in (first, second)]
    random = np.random.default_rng(seed)
    before, after = (
        _drawn_means(np.asarray(side, dtype=np.float64), draws, random) for side in (first, second)
    )
    low, high = np.quantile(after - before, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value=sides[1].value - sides[0].value,
        error=float(np.hypot(sides[0].error, sides[1].error)),
        low=float(low),
        high=float(high),
        n=min(sides[0].n, sides[1].n),
    )


def _drawn_means(x: Floats, draws: int, random: np.random.Generator) -> Floats:
    """The means of `draws` samples of x with replacement ([draws]), a block of them at a time."""
    n, means = len(x), []
    for start in range(0, draws, step := max(1, BLOCK // n)):
        rows = min(step, draws - start)
        means.append(x[random.integers(0, n, size=(rows, n))].mean(axis=1))
    return np.concatenate(means)
