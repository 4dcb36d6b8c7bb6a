"""How the tasks of a mix take turns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def shares_of(weights: Sequence[float]) -> list[Fraction]:
    """Each weight as a share of their sum, exactly: 0.1 and 0.3 are a fourth and three fourths."""
    exact = [Fraction(repr(float(weight))) for weight in weights]
    return [weight / sum(exact) for weight in exact]


def counts_of(weights: Sequence[float], total: int, offset: float) -> list[int]:
    """How many of `total` places each task gets: its share w of them, rounded down or up.

        c_i = floor(total W_i + u) - floor(total W_(i-1) + u),  W_i = w_1 + ... + w_i

    If the offset u is uniform on [0, 1), the mean of c_i is exactly total w_i. The counts add up to
    `total`. Source: systematic sampling (Madow 1949).
    """
    u, ends, whole = Fraction(offset), [0], Fraction(0)
    for share in shares_of(weights):
        whole += share
        ends.append(math.floor(total * whole + u))
    return [end - start for start, end in itertools.pairwise(ends)]


def turns(weights: Sequence[float], total: int, rng: np.random.Generator) -> list[int]:
    """Whose turn each of `total` places is, by the task's number.

    The j-th of a task's c places stands at (j + v) / c of the way, v uniform for each task: every
    stretch of an epoch holds about the same mix.
    """
    counts = counts_of(weights, total, rng.random())
    places = [(np.arange(count) + rng.random()) / max(1, count) for count in counts]
    whose = np.repeat(np.arange(len(counts)), counts)
    order: list[int] = whose[np.argsort(np.concatenate(places), kind="stable")].tolist()
    return order
