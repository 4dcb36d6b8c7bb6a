"""How the tasks of a mix take turns."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from rlkit.ops import stream_rng
from rlkit.tasks.shares import counts_of, shares_of, turns

WEIGHTS = [(1.0, 1.0), (2.0, 1.0), (0.1, 0.3), (5.0, 1.0, 1.0), (1.0, 0.7, 0.2, 3.3, 0.01)]


def test_shares_are_exact() -> None:
    assert shares_of([0.1, 0.3]) == [Fraction(1, 4), Fraction(3, 4)]
    assert sum(shares_of([0.1, 0.2, 0.7])) == 1


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("total", [1, 7, 30, 101])
def test_counts_are_the_shares_rounded_down_or_up(weights: tuple[float, ...], total: int) -> None:
    for offset in np.linspace(0, 1, 23, endpoint=False):
        counts = counts_of(weights, total, float(offset))
        assert sum(counts) == total
        for count, share in zip(counts, shares_of(weights), strict=True):
            assert abs(count - total * share) < 1


def test_counts_by_hand() -> None:
    """Of 4 places 3 : 1 : 1 have 2.4, 0.8 and 0.8; the ends are floor(u + 2.4), floor(u + 3.2)."""
    assert counts_of([3, 1, 1], 4, 0.0) == [2, 1, 1]
    assert counts_of([3, 1, 1], 4, 0.7) == [3, 0, 1]
    assert counts_of([3, 1, 1], 4, 0.9) == [3, 1, 0]
    assert counts_of([3, 1, 1], 5, 0.99) == [3, 1, 1], "whole shares are met exactly"


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_mean_over_offsets_is_the_exact_share(weights: tuple[float, ...]) -> None:
    """The integral over u: the counts change only at multiples of 1 / denominator."""
    total = 9
    shares = shares_of(weights)
    denominator = np.lcm.reduce([share.denominator for share in shares])
    offsets = [Fraction(2 * k + 1, 2 * int(denominator)) for k in range(int(denominator))]
    sums = np.zeros(len(weights))
    for offset in offsets:
        sums += counts_of(weights, total, float(offset))
    for found, share in zip(sums, shares, strict=True):
        assert found == total * share * len(offsets)


def test_tasks_take_turns_evenly() -> None:
    """Any stretch holds about its share of each task, and not all of one task first."""
    order = turns([2, 1, 1], 400, stream_rng(0, "data/turns", 0))
    assert Counter(order) == {0: 200, 1: 100, 2: 100}
    for start in range(0, 380, 20):
        found = Counter(order[start : start + 20])
        assert abs(found[0] - 10) <= 1 and abs(found[1] - 5) <= 1 and abs(found[2] - 5) <= 1


def test_turns_depend_on_the_generator_alone() -> None:
    first, again = (turns([1, 2], 31, stream_rng(3, "data/turns", 5)) for _ in range(2))
    assert first == again
    assert any(turns([1, 2], 31, stream_rng(3, "data/turns", epoch)) != first for epoch in (6, 7))
    assert turns([1], 3, stream_rng(0, "x")) == [0, 0, 0]
