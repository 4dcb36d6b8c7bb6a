"""Which rows a step replays: tiers by age, the best ones, draws from weighted buckets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from buffers.replay import AgeConfig
from buffers.rows import Bools, Floats, Ints, Rows
from buffers.storage import oldest_version
from rlkit.batch import Group, Sample

NO_TOKEN = np.iinfo(np.int64).min
"""Takes the place of the oldest weights where no token was sampled."""


def oldest_of(samples: Iterable[Sample]) -> int:
    """The oldest weights that sampled a token, or NO_TOKEN."""
    return version_number(oldest_version(samples))


def add_groups(rows: Rows, groups: Sequence[Group], **values: object) -> None:
    """Add groups to a table, with the oldest weights of each and how many responses it has."""
    rows.add(
        len(groups),
        group=groups,
        oldest=[oldest_of(group.samples) for group in groups],
        responses=[len(group.samples) for group in groups],
        **values,
    )


def version_number(oldest: int | None) -> int:
    """NO_TOKEN in place of None."""
    return NO_TOKEN if oldest is None else oldest


def ages(oldest: Ints, step: int) -> Ints:
    """Steps since these weights, [rows]; 0 where there is no token."""
    return np.where(oldest == NO_TOKEN, 0, step - oldest)


def allowed(oldest: Ints, step: int, config: AgeConfig) -> Bools:
    """Where `max_age` allows replay, [rows]; everywhere under over_age=keep."""
    if config.max_age is None or config.over_age == "keep":
        return np.ones(len(oldest), dtype=bool)
    return ages(oldest, step) <= config.max_age


def tiers_of(oldest: Ints, step: int, config: AgeConfig) -> list[Ints]:
    """`by_age` for rows: the places of what may be replayed, in tiers."""
    if config.max_age is None:
        return [np.arange(len(oldest))]
    young = ages(oldest, step) <= config.max_age
    tiers = [young] if config.over_age == "drop" else [young, ~young]
    return [np.flatnonzero(tier) for tier in tiers]


def smallest(key: Floats, count: int) -> Ints:
    """The places of the `count` smallest keys, the smallest first; of equal ones the earlier."""
    if count <= 0:
        return np.zeros(0, dtype=np.int64)
    if count >= len(key):
        return np.argsort(key, kind="stable")
    bound = np.partition(key, count - 1)[count - 1]
    below = np.flatnonzero(key < bound)
    equal = np.flatnonzero(key == bound)[: count - len(below)]
    found = np.concatenate([below, equal])
    return found[np.argsort(key[found], kind="stable")]


def largest(key: Floats, count: int) -> Ints:
    """The places of the `count` largest keys, the largest first; of equal ones the later."""
    return len(key) - 1 - smallest(-key[::-1], count)


def among(values: Ints, wanted: Iterable[int]) -> Ints:
    """The places of the values that are wanted."""
    known = np.sort(np.fromiter(wanted, dtype=np.int64))
    if not len(known):
        return np.zeros(0, dtype=np.int64)
    nearest = known[np.minimum(np.searchsorted(known, values), len(known) - 1)]
    return np.flatnonzero(nearest == values)


def ranks(key: Floats) -> Ints:
    """The rank of each key, the largest 0; of equal ones the later has the better."""
    order = len(key) - 1 - np.argsort(-key[::-1], kind="stable")
    found = np.empty(len(key), dtype=np.int64)
    found[order] = np.arange(len(key))
    return found


def draw_buckets(rng: np.random.Generator, bucket: Ints, weights: Floats, count: int) -> list[int]:
    """At most `count` items: each picks a bucket by weight among those left, then evenly inside it.

    Args:
        rng: Gives two numbers per item.
        bucket: The bucket of each item, [items], counted from 0.
        weights: The weight of each bucket, [buckets]; at weight 0 it is never picked.
        count: How many items at most.

    Returns their places. Without replacement, so a bucket that runs out hands its share on.
    """
    left = np.where(weights > 0, np.bincount(bucket, minlength=len(weights)), 0)
    inside: dict[int, Ints] = {}
    taken: dict[int, list[int]] = {}
    drawn: list[int] = []
    keys, shares = _shares(left, weights)
    while len(keys) and len(drawn) < count:
        key = int(keys[rng.choice(len(keys), p=shares)])
        if key not in inside:
            inside[key], taken[key] = np.flatnonzero(bucket == key), []
        place = _nth_left(taken[key], int(rng.integers(left[key])))
        drawn.append(int(inside[key][place]))
        left[key] -= 1
        if not left[key]:
            keys, shares = _shares(left, weights)
    return drawn


def _shares(left: Ints, weights: Floats) -> tuple[Ints, Floats]:
    """The buckets with items left, and the share of each."""
    keys = np.flatnonzero(left)
    chosen = weights[keys]
    return keys, chosen / np.cumsum(chosen)[-1] if len(keys) else chosen


def _nth_left(taken: list[int], n: int) -> int:
    """The nth number from 0 that is not taken; it is taken now. `taken` stays sorted."""
    at = 0
    while at < len(taken) and taken[at] <= n:
        n, at = n + 1, at + 1
    taken.insert(at, n)
    return n
