"""Replay of a prompt's own responses: stores, selectors, groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buffers.repo import Repo, RepoConfig, max_variance, select
from rlkit.batch import Sample
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.buffers import ids
from tests.buffers.test_replay import (
    Cycle,
    FewPrompts,
    check_frequencies,
    check_real_run_that_revisits,
    check_resumes,
    one,
)

FIELDS: dict[str, Any] = {"cache": 8, "min_cache": 4, "replayed": 3}


def paid(*rewards: float) -> list[Sample]:
    samples = one(1, n=len(rewards)).samples
    return [replace(s, reward=r) for s, r in zip(samples, rewards, strict=True)]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [("all", [1, 2, 3, 4, 5]), ("recent", [4, 5]), ("highest", [2, 5]), ("max_variance", [1, 2])],
)
def test_selectors(selector: Any, expected: list[int]) -> None:
    """Of equally high rewards the newest; the largest spread is 0 and 1."""
    stored = paid(0.0, 1.0, 0.5, 0.5, 0.7)
    chosen = select(stored, 2, selector, np.random.default_rng(0))
    assert [s.sample_id for s in chosen] == expected


def test_random_takes_every_pair_alike() -> None:
    rng, found = np.random.default_rng(0), Counter[Hashable]()
    stored = paid(0.0, 1.0, 0.0, 1.0)
    for _ in range(3000):
        found[tuple(s.sample_id for s in select(stored, 2, "random", rng))] += 1
    check_frequencies(found, dict.fromkeys(combinations((1, 2, 3, 4), 2), 1 / 6))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=7), st.integers(1, 7))
def test_max_variance_is_the_best_of_all_subsets(rewards: list[int], k: int) -> None:
    """Against brute force, ties by the larger sum."""
    k = min(k, len(rewards))
    found = [float(rewards[i]) for i in max_variance([float(r) for r in rewards], k)]
    best = max(
        (round(float(np.var(subset)), 12), float(sum(subset)))
        for subset in combinations(rewards, k)
    )
    assert len(found) == k and (round(float(np.var(found)), 12), sum(found)) == best


def test_split_replays_beside_the_new_group_once_the_store_is_filled() -> None:
    """Two prompts in turn, one visit per step: 4 responses each, replayed from the third on."""
    cycle = Cycle(Repo(RepoConfig(**FIELDS)), 2, FewPrompts(2))
    made: dict[str, list[int]] = {}
    for step in range(1, 8):
        fresh, trained = cycle.step(step)
        (group,) = fresh
        name = group.prompt.prompt_id
        expected = [[s.sample_id for s in group.samples]]
        if step > 2:
            expected.append(made[name][-3:])
            assert trained[1].prompt is group.prompt
        assert ids(trained) == expected
        made[name] = made.get(name, []) + expected[0]
        assert len(cycle.buffer.stored[name]) == min(8, len(made[name]))
    assert cycle.buffer.stats() == {"prompts": 2, "ready": 2}


def test_mixed_makes_one_larger_group() -> None:
    cycle = Cycle(Repo(RepoConfig(**FIELDS, grouping="mixed")), 2, FewPrompts(2))
    cycle.step(1)
    fresh, trained = cycle.step(2)
    assert len(fresh) == len(trained) == 2
    assert [len(group.samples) for group in trained] == [7, 7]
    assert {s.step for s in trained[0].samples} == {1, 2}


@pytest.mark.parametrize("grouping", ["split", "mixed"])
def test_responses_over_age_do_not_count(grouping: str) -> None:
    """A prompt's 8 responses of steps 1 and 2, two of each two samples a step."""
    fields: dict[str, Any] = {"cache": 8, "min_cache": 4, "replayed": 8, "grouping": grouping}

    def replayed(step: int, **ages: Any) -> list[int]:
        buffer = Repo(RepoConfig(**fields, **ages))
        for made in (1, 2):
            buffer.add([one(10 * made, made, n=4)], made)
        fresh = [one(90, step)]
        trained = buffer.build(fresh, 2, step)
        return sorted(s.step for g in trained for s in g.samples if s.step < step)

    assert replayed(3) == [1] * 4 + [2] * 4
    assert replayed(3, max_age=1) == [2] * 4
    assert replayed(4, max_age=1) == [], "fewer than min_cache are left"
    assert replayed(4, max_age=1, over_age="keep") == [1] * 4 + [2] * 4


@pytest.mark.parametrize("selector", ["all", "recent", "random", "highest", "max_variance"])
@pytest.mark.parametrize(
    ("replayed", "steps"), [(3, [2] * 3), (4, [2] * 4), (6, [1, 1, 2, 2, 2, 2])]
)
def test_young_responses_are_taken_first(selector: Any, replayed: int, steps: list[int]) -> None:
    """Four responses are within max_age; "all" has room for every one."""
    ages: dict[str, Any] = {"max_age": 1, "over_age": "keep"}
    buffer = Repo(RepoConfig(cache=8, min_cache=4, replayed=replayed, selector=selector, **ages))
    for made in (1, 2):
        buffer.add([one(10 * made, made, n=4)], made)
    found = sorted(s.step for s in buffer.build([one(90, 3)], 2, 3)[1].samples)
    assert found == ([1] * 4 + [2] * 4 if selector == "all" else steps)


def test_a_prompt_met_twice_is_replayed_once() -> None:
    cycle = Cycle(Repo(RepoConfig(**FIELDS, grouping="mixed")), 2, FewPrompts(1))
    cycle.step(1)
    assert [len(group.samples) for group in cycle.step(2)[1]] == [7, 4]


def test_an_unfilled_store_is_not_replayed() -> None:
    cycle = Cycle(Repo(RepoConfig(cache=8, min_cache=5)), 2, FewPrompts(1))
    assert [len(cycle.step(step)[1]) for step in (1, 2, 3)] == [1, 1, 2]


@pytest.mark.parametrize("grouping", ["split", "mixed"])
@pytest.mark.parametrize("selector", ["random", "recent"])
def test_it_resumes(grouping: str, selector: str) -> None:
    def make() -> Any:
        return build("buffer", "repo", **FIELDS, grouping=grouping, selector=selector)

    check_resumes(make, Cycle(make(), 5, FewPrompts(7)))


def test_a_store_that_never_fills_is_refused() -> None:
    with pytest.raises(UserError, match="min_cache=9 is never reached with cache=8"):
        build("buffer", "repo", cache=8, min_cache=9)


def test_it_trains(tmp_path: Path) -> None:
    args = ("buffer.min_cache=4", "buffer.grouping=mixed")
    rows = check_real_run_that_revisits("buffer=repo", *args, cwd=tmp_path)
    assert rows[1]["buffer/fresh_fraction"] == 1 and rows[2]["buffer/fresh_fraction"] == 0.5
    assert rows[2]["buffer/age_max"] == 2
