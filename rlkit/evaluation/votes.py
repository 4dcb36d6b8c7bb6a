"""maj@k: how often the most frequent of k answers is right, over all choices of k samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from rlkit.ops import stream_rng

EXACT = 128
"""Most samples of a problem for which the expectation is computed; beyond, subsets are drawn."""
DRAWS = 2_000
"""Subsets drawn then."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """The answers to one problem, equal ones together."""

    counts: tuple[int, ...]
    """How often each answer was given."""
    right: tuple[float, ...]
    """The share of each answer's samples that are marked right: 0 or 1 unless equality is not
    transitive."""
    silent: int
    """Samples without an answer: they have no vote."""

    @property
    def samples(self) -> int:
        """All samples."""
        return sum(self.counts) + self.silent

    @staticmethod
    def of(classes: Sequence[int | None], marks: Sequence[bool]) -> Ballot:
        """From each sample's class of equal answers (None = no answer) and its mark."""
        known = sorted({c for c in classes if c is not None})
        members = [[m for c, m in zip(classes, marks, strict=True) if c == k] for k in known]
        return Ballot(
            counts=tuple(map(len, members)),
            right=tuple(sum(each) / len(each) for each in members),
            silent=sum(c is None for c in classes),
        )


def majority(ballot: Ballot, k: int, seed: int = 0) -> float:
    """The expected mark of the most frequent answer among k of the n samples.

        maj@k = E_S [ mean of right[g] over the answers g with the most votes in S ],

    where S is uniform over the C(n, k) subsets of size k: a tie counts with the expected value of a
    random choice among the tied, and a subset without any answer counts 0. Exact for up to 128
    samples and for k = n, else the mean over 2,000 subsets drawn with the seed.

    Raises ValueError unless 1 <= k <= n.
    """
    n = ballot.samples
    if not 1 <= k <= n:
        raise ValueError(f"maj@{k} needs {k} samples, and there are {n}")
    if k == n:
        return winner(np.array(ballot.counts), np.array(ballot.right))
    return exact(ballot, k) if n <= EXACT else drawn(ballot, k, seed)


def winner(votes: NDArray[np.int64], right: Floats) -> float:
    """The mean mark of the answers with the most votes; 0 if nobody voted."""
    if not votes.any():
        return 0.0
    return float(right[votes == votes.max()].mean())


def exact(ballot: Ballot, k: int) -> float:
    """The expectation: a sum over each answer g that can be right and each number t of its votes.

    It is C(c_g, t) times the ways in which the others get k - t samples with at most t votes each,
    divided by one more than how many of them have exactly t.
    """
    ways = 0.0
    for g, (count, right) in enumerate(zip(ballot.counts, ballot.right, strict=True)):
        others = [c for h, c in enumerate(ballot.counts) if h != g]
        for votes in range(1, min(count, k) + 1) if right else ():
            tied = ways_below(others, ballot.silent, votes, k - votes)
            shares = tied / np.arange(1, len(tied) + 1)
            ways += right * comb(count, votes) * float(shares.sum())
    return ways / comb(ballot.samples, k)


def ways_below(others: Sequence[int], silent: int, most: int, size: int) -> Floats:
    """In how many ways `size` samples fall on the others with at most `most` votes for each.

    By how many of them have exactly `most`: [ties]; the silent samples may all be chosen.
    """
    table = np.zeros((size // most + 1, size + 1))
    for chosen in range(min(silent, size) + 1):
        table[0, chosen] = comb(silent, chosen)
    for count in others:
        out = table.copy()
        for votes in range(1, min(count, most, size) + 1):
            moved = comb(count, votes) * table[:, : size + 1 - votes]
            if votes == most:
                out[1:, votes:] += moved[:-1]
            else:
                out[:, votes:] += moved
        table = out
    return table[:, size]


def drawn(ballot: Ballot, k: int, seed: int) -> float:
    """The mean over seeded subsets."""
    colors = [*ballot.counts, ballot.silent]
    rng = stream_rng(seed, "eval/majority", k, *colors)
    chosen = rng.multivariate_hypergeometric(colors, k, size=DRAWS)[:, :-1]
    right = np.array(ballot.right)
    return float(np.mean([winner(votes, right) for votes in chosen]))
