"""Prioritized replay: what a priority is, how often it is drawn, what refreshes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

import pytest

from buffers.prioritized import (
    Prioritized,
    PrioritizedConfig,
    draw_probabilities,
    group_priorities,
)
from buffers.rows import Floats
from rlkit.batch import Score
from rlkit.errors import UserError
from rlkit.registry import build
from tests.buffers.test_replay import Cycle, check_frequencies, one

ADVANTAGES = ([1.0, -2.0], [0.5, 0.5], [-1.0, -3.0], [0.0, 0.0])


def filled(**fields: Any) -> Prioritized:
    """Four groups of two responses with the advantages above."""
    buffer = Prioritized(PrioritizedConfig(**fields))
    for i, advantage in enumerate(ADVANTAGES):
        buffer.add([one(10 * i + 1)], 1)
        first = buffer.groups[-1].samples
        buffer.observe(
            {
                s.sample_id: Score(logp=s.behavior_logp, entropy=1.0, advantage=a)
                for s, a in zip(first, advantage, strict=True)
            }
        )
    return buffer


def priorities(buffer: Prioritized) -> Floats:
    """The priority of each stored group."""
    return group_priorities(buffer.rows["value"], buffer.config)


@pytest.mark.parametrize(
    ("priority", "reduction", "expected"),
    [
        ("advantage", "mean", [1.5, 0.5, 2.0, 0.0]),
        ("advantage", "max", [2.0, 0.5, 3.0, 0.0]),
        ("positive_gap", "mean", [0.5, 0.5, 0.0, 0.0]),
        ("positive_gap", "max", [1.0, 0.5, 0.0, 0.0]),
    ],
)
def test_priorities_from_advantages(priority: str, reduction: str, expected: list[float]) -> None:
    buffer = filled(priority=priority, reduction=reduction)
    assert list(priorities(buffer)) == pytest.approx(expected)


def test_reward_priorities_are_scaled_over_the_stock() -> None:
    """Rewards alternate with the sample number, so three in a row have the mean 2/3 or 1/3."""
    buffer = Prioritized(PrioritizedConfig(priority="reward"))
    buffer.add([one(1, n=3), one(4, n=3), one(7, n=2)], 1)
    assert list(priorities(buffer)) == pytest.approx([1, 0, 0.5])
    buffer.add([one(9, n=3)], 1)
    alike = buffer.rows["value"][[0, 3]]
    assert list(group_priorities(alike, buffer.config)) == [0, 0]


def test_a_group_without_scores_gets_the_largest_priority() -> None:
    buffer = filled()
    buffer.add([one(101)], 1)
    assert priorities(buffer)[-1] == 2.0
    assert list(group_priorities(buffer.rows["value"][-1:], buffer.config)) == [1.0]


def test_scores_of_only_some_responses_change_nothing() -> None:
    buffer = filled()
    sample = buffer.groups[0].samples[0]
    buffer.observe({sample.sample_id: Score(logp=sample.behavior_logp, entropy=1.0, advantage=9.0)})
    assert buffer.rows["advantage"][0] == ADVANTAGES[0] and priorities(buffer)[0] == 1.5


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({}, [1.51**0.7, 0.51**0.7, 2.01**0.7, 0.01**0.7]),
        ({"alpha": 1, "epsilon": 0.5}, [2.0, 1.0, 2.5, 0.5]),
        ({"alpha": 0}, [1.0, 1.0, 1.0, 1.0]),
        ({"scheme": "rank", "alpha": 1}, [1 / 2, 1 / 3, 1.0, 1 / 4]),
        ({"scheme": "rank"}, [2**-0.7, 3**-0.7, 1.0, 4**-0.7]),
        (
            {"scheme": "rank", "alpha": 1, "priority": "positive_gap", "reduction": "mean"},
            [1 / 2, 1.0, 1 / 4, 1 / 3],
        ),
    ],
)
def test_the_draw_follows_the_formula(fields: dict[str, Any], weights: list[float]) -> None:
    """5000 draws of one group; under rank, the newer of two equals comes first."""
    buffer, found = filled(replay_fraction=0.2, **fields), Counter[Hashable]()
    for step in range(1, 5001):
        (group,) = buffer.build([], 5, step)
        found[group.samples[0].sample_id] += 1
    names = buffer.rows.listed("first")
    check_frequencies(found, {n: w / sum(weights) for n, w in zip(names, weights, strict=True)})


def test_the_second_draw_follows_the_weights_that_are_left() -> None:
    """Without replacement: P(a then b) = w_a / W * w_b / (W - w_a)."""
    buffer, found = filled(replay_fraction=0.4, alpha=1, epsilon=0.5), Counter[Hashable]()
    weights, total = [2.0, 1.0, 2.5, 0.5], 6.0
    names = {name: i for i, name in enumerate(buffer.rows.listed("first"))}
    for step in range(1, 5001):
        found[frozenset(names[g.samples[0].sample_id] for g in buffer.build([], 5, step))] += 1
    pairs = [(a, b) for a in range(4) for b in range(a)]
    shares: dict[Hashable, float] = {
        frozenset(pair): sum(
            weights[x] / total * weights[y] / (total - weights[x]) for x, y in (pair, pair[::-1])
        )
        for pair in pairs
    }
    check_frequencies(found, shares)


@pytest.mark.parametrize("scheme", ["proportional", "rank"])
@pytest.mark.parametrize("alpha", [200.0, 5000.0])
def test_every_group_can_be_drawn_however_large_alpha_is(scheme: str, alpha: float) -> None:
    """Of priorities 1.5, 0.5, 2 and 0 the powers of all but one underflow, or overflow."""
    buffer = filled(replay_fraction=0.6, scheme=scheme, alpha=alpha)
    drawn = buffer.build([], 5, 1)
    assert len({g.samples[0].sample_id for g in drawn}) == 3
    chance = draw_probabilities(priorities(buffer), buffer.config)
    assert chance.sum() == pytest.approx(1) and chance.min() > 0
    assert chance.argmax() == 2


def test_a_replayed_group_is_scored_anew() -> None:
    buffer = Prioritized(PrioritizedConfig(replay_fraction=0.5))
    cycle = Cycle(buffer, 2)
    cycle.step(1)
    buffer.rows["advantage"][0], buffer.rows["value"][0] = [7.0] * 4, 7.0
    cycle.step(2)
    assert buffer.rows["advantage"][0] == [0.5, -0.5, 0.5, -0.5] and priorities(buffer)[0] == 0.5
    assert all(buffer.rows["advantage"]), "add comes before observe"


def test_the_oldest_leave_a_full_stock() -> None:
    cycle = Cycle(Prioritized(PrioritizedConfig(capacity=5)), 5)
    for step in range(1, 6):
        cycle.step(step)
    assert [g.samples[0].step for g in cycle.buffer.groups] == [4, 4, 5, 5, 5]


@pytest.mark.parametrize("fields", [{"epsilon": 0}, {"alpha": -1}, {"priority": "td"}])
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        build("buffer", "prioritized", **fields)
