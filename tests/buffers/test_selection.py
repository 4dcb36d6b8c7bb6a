"""Choices over arrays are those of the plain rankings and lists they stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from buffers.replay import AgeConfig, by_age
from buffers.selection import (
    NO_TOKEN,
    allowed,
    among,
    draw_buckets,
    largest,
    ranks,
    smallest,
    tiers_of,
)
from tests.buffers.test_replay import check_frequencies

SIZES = (0, 1, 2, 7, 40)


def keys(rng: np.random.Generator, size: int) -> list[np.ndarray[Any, Any]]:
    """Different ones, many equal ones, and all equal."""
    return [rng.random(size), rng.integers(3, size=size).astype(float), np.zeros(size)]


@pytest.mark.parametrize("size", SIZES)
def test_the_best_are_those_of_a_sort_with_its_ties(size: int) -> None:
    rng = np.random.default_rng(size)
    for key in keys(rng, size):
        low = sorted(range(size), key=lambda i: (key[i], i))
        high = sorted(range(size), key=lambda i: (-key[i], -i))
        for count in (-1, 0, 1, 2, size // 2, size, size + 3):
            assert smallest(key, count).tolist() == low[: max(count, 0)]
            assert largest(key, count).tolist() == high[: max(count, 0)]
        assert [high.index(i) for i in range(size)] == ranks(key).tolist()


def test_ties_at_the_bound_take_the_earlier_or_the_later() -> None:
    key = np.array([5.0, 1.0, 5.0, 9.0, 5.0])
    assert smallest(key, 3).tolist() == [1, 0, 2]
    assert largest(key, 3).tolist() == [3, 4, 2]
    assert ranks(key).tolist() == [3, 4, 2, 0, 1]


def test_places_of_wanted_values() -> None:
    assert among(np.array([7, -3, 9, 7, 8]), [9, 7, 100]).tolist() == [0, 2, 3]
    assert among(np.array([7]), []).tolist() == []
    assert among(np.zeros(0, dtype=np.int64), [1]).tolist() == []


@pytest.mark.parametrize("fields", [{}, {"max_age": 2}, {"max_age": 2, "over_age": "keep"}])
def test_tiers_are_those_of_a_list(fields: Mapping[str, Any]) -> None:
    """The last has no token and is never stale."""
    config, step = AgeConfig(**fields), 9
    oldest = np.array([6, 8, 7, 5, 7, NO_TOKEN])
    expected = by_age(range(6), lambda i: 0 if i == 5 else step - int(oldest[i]), config)
    assert [tier.tolist() for tier in tiers_of(oldest, step, config)] == expected
    left = [1, 2, 4, 5] if fields == {"max_age": 2} else list(range(6))
    assert np.flatnonzero(allowed(oldest, step, config)).tolist() == left


def draw_from_lists(
    rng: np.random.Generator,
    buckets: Mapping[int, Sequence[int]],
    weights: Mapping[int, float],
    count: int,
) -> list[int]:
    """The same draw with lists that shrink."""
    left = {key: list(items) for key, items in buckets.items() if items and weights[key] > 0}
    drawn: list[int] = []
    while left and len(drawn) < count:
        total = sum(weights[key] for key in left)
        shares = [weights[key] / total for key in left]
        key = list(left)[rng.choice(len(left), p=shares)]
        drawn.append(left[key].pop(rng.integers(len(left[key]))))
        left = {key: items for key, items in left.items() if items}
    return drawn


@pytest.mark.parametrize("seed", range(20))
def test_buckets_are_drawn_as_from_lists(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bucket = rng.integers(5, size=rng.integers(40))
    weights = rng.random(5) * (rng.random(5) < 0.8)
    buckets = {key: np.flatnonzero(bucket == key).tolist() for key in range(5)}
    for count in (0, 1, 5, 100):
        found = draw_buckets(np.random.default_rng(seed), bucket, weights, count)
        by_key = dict(enumerate(weights.tolist()))
        assert found == draw_from_lists(np.random.default_rng(seed), buckets, by_key, count)


def test_buckets_are_drawn_by_weight_and_evenly_inside() -> None:
    bucket, weights = np.array([0, 0, 1, 2]), np.array([3.0, 1.0, 0.0, 9.0])
    rng, found = np.random.default_rng(0), Counter[Hashable]()
    for _ in range(4000):
        found[draw_buckets(rng, bucket, weights, 1)[0]] += 1
    check_frequencies(found, {0: 0.375, 1: 0.375, 2: 0.25})


def test_buckets_hand_on_their_share_and_give_each_item_once() -> None:
    rng, bucket = np.random.default_rng(0), np.array([0, 0, 1])
    assert sorted(draw_buckets(rng, bucket, np.array([1e-9, 1.0]), 9)) == [0, 1, 2]
    assert draw_buckets(rng, bucket, np.array([0.0, 1.0]), 9) == [2]
    assert draw_buckets(rng, bucket[:0], np.zeros(0), 3) == []
    assert draw_buckets(rng, bucket, np.array([1.0, 1.0]), 0) == []
