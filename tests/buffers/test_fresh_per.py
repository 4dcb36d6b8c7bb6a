"""FreshPER: priorities that fade, and the importance weights that undo the draw."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from buffers.fresh_per import (
    FreshPER,
    FreshPERConfig,
    draw_logits,
    importance_exponent,
    importance_weights,
)
from rlkit.batch import REPLAY_WEIGHT, Score
from rlkit.errors import UserError
from rlkit.interfaces import RunContext
from rlkit.registry import build
from tests.buffers.test_replay import Cycle, check_frequencies, one


def test_a_priority_falls_to_one_over_e_in_tau_steps() -> None:
    found = draw_logits(np.array([2.0, 2.0, 1.0]), np.array([0, 5, 10]), 5.0, 1.0)
    assert np.exp(found) == pytest.approx([1, 1 / math.e, 0.5 / math.e**2])
    halved = draw_logits(np.array([2.0, 2.0, 1.0]), np.array([0, 5, 10]), 5.0, 0.5)
    assert halved == pytest.approx(found / 2)


def test_the_oldest_group_can_still_be_drawn_and_weighs_no_nan() -> None:
    """10,000 steps at tau 1 would underflow."""
    logits = draw_logits(np.array([1.0, 1.0]), np.array([10_000, 0]), 1.0, 1.0)
    assert np.exp(logits).min() > 0
    weights = importance_weights(np.exp(logits), 1.0)
    assert weights[0] == 1 and 0 < weights[1] < 1e-20


@pytest.mark.parametrize(("step", "expected"), [(1, 0.4), (51, 0.7), (101, 1.0), (500, 1.0)])
def test_the_exponent_rises_to_one(step: int, expected: float) -> None:
    assert importance_exponent(step, 0.4, 100) == pytest.approx(expected)


def test_importance_weights_by_hand() -> None:
    """N P = 2, 1 and 0.5 and 0.5: with beta 1 their inverses over the largest, 2."""
    chance = np.array([0.5, 0.25, 0.125, 0.125])
    assert importance_weights(chance, 1.0) == pytest.approx([0.25, 0.5, 1, 1])
    assert importance_weights(chance, 0.5) == pytest.approx([0.5, math.sqrt(0.5), 1, 1])
    assert importance_weights(chance, 0.0) == pytest.approx([1, 1, 1, 1])


def filled(**fields: Any) -> FreshPER:
    """Groups of the steps 1, 5 and 9 with |A| = 1, 1 and 3."""
    buffer = FreshPER(FreshPERConfig(epsilon=1e-9, alpha=1.0, **fields))
    for step, size in ((1, 1.0), (5, 1.0), (9, 3.0)):
        buffer.add([one(10 * step, step)], step)
        buffer.observe(
            {
                s.sample_id: Score(logp=s.behavior_logp, entropy=1.0, advantage=size)
                for s in buffer.groups[-1].samples
            }
        )
    return buffer


def test_old_groups_are_drawn_less() -> None:
    """At step 9 with tau 4: e^-2, e^-1 and 3 over their sum. One that is drawn alone weighs 1."""
    buffer = filled(tau=4.0, replay_fraction=0.5, beta=1.0)
    weights = np.array([math.exp(-2), math.exp(-1), 3.0])
    found: Counter[Any] = Counter()
    for seed in range(2000):
        buffer.open(RunContext(seed=seed))
        (group,) = buffer.build([], 2, 9)
        found[(1, 5, 9).index(group.samples[0].step)] += 1
        assert [s.extras[REPLAY_WEIGHT] for s in group.samples] == [1.0, 1.0]
    check_frequencies(found, dict(enumerate(weights / weights.sum())))


def test_each_brings_its_weight_among_those_that_were_drawn() -> None:
    """The least likely of the two sets the scale, whatever else is stored."""
    buffer = filled(tau=4.0, replay_fraction=0.5, beta=1.0)
    chance = {1: math.exp(-2), 5: math.exp(-1), 9: 3.0}
    pairs: set[tuple[int, ...]] = set()
    for seed in range(20):
        buffer.open(RunContext(seed=seed))
        groups = buffer.build([], 4, 9)
        steps = [group.samples[0].step for group in groups]
        least = min(chance[step] for step in steps)
        for step, group in zip(steps, groups, strict=True):
            expected = pytest.approx([least / chance[step]] * 2)
            assert [s.extras[REPLAY_WEIGHT] for s in group.samples] == expected
        pairs.add(tuple(sorted(steps)))
    assert len(pairs) > 1


def test_fresh_groups_have_no_weight_and_a_resumed_buffer_draws_the_same() -> None:
    cycle = Cycle(FreshPER(FreshPERConfig(replay_fraction=0.5)), 4)
    for step in (1, 2):
        fresh, trained = cycle.step(step)
    assert not any(REPLAY_WEIGHT in s.extras for group in fresh for s in group.samples)
    assert all(REPLAY_WEIGHT in s.extras for group in trained[2:] for s in group.samples)
    again = FreshPER(FreshPERConfig(replay_fraction=0.5))
    again.load_state_dict(cycle.buffer.state_dict())
    ids, others = (
        [s.sample_id for group in buffer.build([], 4, 3) for s in group.samples]
        for buffer in (cycle.buffer, again)
    )
    assert ids == others and ids


def test_ranks_are_another_buffers() -> None:
    with pytest.raises(UserError, match="buffer=prioritized"):
        build("buffer", "fresh_per", scheme="rank")
