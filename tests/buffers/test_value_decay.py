"""The queue of new and little used groups: order, uses, rest, room."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from buffers.value_decay import ValueDecay, ValueDecayConfig, queue_priority
from rlkit.batch import Group
from rlkit.interfaces import RunContext
from tests.buffers.test_replay import Cycle, one


def queue(**fields: Any) -> ValueDecay:
    return ValueDecay(ValueDecayConfig(**fields))


def steps(groups: list[Group]) -> list[int]:
    return [group.samples[0].step for group in groups]


def test_priority() -> None:
    version, uses, noise = np.array([7.0, 0.0]), np.array([2.0, 1.0]), np.array([0.25, 0.0])
    assert list(queue_priority(version, uses, 2.0, noise)) == [3.25, -2.0]


def test_each_use_costs_as_much_as_decay_steps() -> None:
    """Groups of steps 1, 2, 3, each used once. One draw per step, worked out by hand: priorities
    -1, 0, 1 -> step 3; then -1, 0, -1 -> step 2; then -1, -2, -1: the newer of the equal ones."""
    buffer = queue(replay_fraction=0.2, use_limit=None)
    for step in (1, 2, 3):
        buffer.add([one(10 * step, step)], step)
    assert [steps(buffer.build([], 5, step)) for step in (4, 5, 6, 7)] == [[3], [2], [3], [1]]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_group_is_trained_no_more_often_than_the_limit(limit: int) -> None:
    cycle = Cycle(queue(replay_fraction=0.8, use_limit=limit, decay=0.0), 5)
    trained = [steps(cycle.step(step)[1]) for step in range(1, 9)]
    flat = [made for step in trained for made in step]
    assert [flat.count(made) for made in range(1, 5)] == [limit] * 4
    assert all(cycle.buffer.rows["uses"] < limit)


def test_a_used_group_rests() -> None:
    """One fresh group per step, room for all: a group comes back every third step."""
    cycle = Cycle(queue(replay_fraction=0.8, use_limit=None, cooldown=3), 5)
    found: dict[int, list[int]] = {}
    for step in range(1, 11):
        for made in steps(cycle.step(step)[1]):
            found.setdefault(made, []).append(step)
    assert found[1] == [1, 4, 7, 10] and found[2] == [2, 5, 8]


def test_a_full_queue_loses_its_lowest_priority_even_a_new_one() -> None:
    buffer = queue(capacity=2)
    for step in (4, 5):
        buffer.add([one(10 * step, step)], step)
    buffer.add([one(1, 1)], 6)
    assert steps(buffer.groups) == [4, 5]
    buffer.add([one(70, 7)], 7)
    assert steps(buffer.groups) == [5, 7]


def test_noise_is_drawn_at_each_insertion_with_its_spread() -> None:
    buffer = queue(noise=3.0, use_limit=None, capacity=5000)
    buffer.add([one(2 * i + 1) for i in range(2000)], 1)
    noise = buffer.rows["noise"].copy()
    assert noise.mean() == pytest.approx(0, abs=4 * 3 / 2000**0.5)
    assert noise.std() == pytest.approx(3, abs=4 * 3 / 4000**0.5)
    drawn = {group.samples[0].sample_id for group in buffer.build([], 10, 2)}
    changed = buffer.rows["first"][buffer.rows["noise"] != noise]
    assert set(changed) == drawn and len(drawn) == 4


def test_without_noise_no_draw_depends_on_the_seed() -> None:
    def trained(seed: int) -> list[list[int]]:
        buffer = queue()
        buffer.open(RunContext(seed=seed))
        cycle = Cycle(buffer, 5)
        return [steps(cycle.step(step)[1]) for step in range(1, 9)]

    assert trained(1) == trained(2)
