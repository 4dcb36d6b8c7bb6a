"""FIFO replay in the training loop's order: window, shares, whole groups, ages, resumption."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from buffers.fifo import Fifo, FifoConfig, age_shares
from buffers.on_policy import OnPolicy
from rlkit.batch import Group
from rlkit.errors import UserError
from rlkit.interfaces import RunContext, RunSize
from rlkit.registry import build
from rlkit.testing.base import stored
from rlkit.testing.buffers import FakePrompts, FakeRollouts, ids
from tests.buffers.test_storage import same


class Loop:
    """A buffer fed with `batch` groups' worth of steps."""

    def __init__(self, buffer: Any, batch: int) -> None:
        self.buffer, self.batch = buffer, batch
        self.prompts, self.rollouts = FakePrompts(num_generations=3), FakeRollouts()
        self.made: dict[int, list[list[int]]] = {}

    def step(self, step: int) -> tuple[list[Group], list[Group]]:
        """The fresh groups and the trained ones."""
        requests = self.buffer.plan(self.batch, step, self.prompts)
        fresh = self.rollouts.groups(requests, step)
        trained = self.buffer.build(fresh, self.batch, step)
        self.buffer.add(fresh, step)
        self.made[step] = ids(fresh)
        return fresh, trained


def fifo(seed: int = 0, **fields: Any) -> Fifo:
    buffer = Fifo(FifoConfig(**fields))
    buffer.open(RunContext(seed=seed))
    return buffer


def age(group: Group, step: int) -> int:
    (made,) = {sample.step for sample in group.samples}
    return step - made


@pytest.mark.parametrize(
    ("batch", "fraction", "fresh"),
    [
        (5, 0.4, 3),
        (10, 0.4, 6),
        (256, 0.4, 153),
        (4, 0.4, 2),
        (1, 0.4, 1),
        (3, 0.99, 1),
        (7, 0, 7),
        (100, 0.55, 45),
    ],
)
def test_the_fresh_share_is_rounded_down_but_never_zero(
    batch: int, fraction: float, fresh: int
) -> None:
    """153 of 256 is ReMix's count; 0.55 * 100 is 55, not 56 by binary rounding."""
    assert fifo(replay_fraction=fraction).fresh_share(batch) == fresh


@given(
    batch=st.integers(1, 9),
    fraction=st.floats(0, 0.95),
    window=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_a_batch_is_the_fresh_groups_and_whole_earlier_ones_each_once(
    batch: int, fraction: float, window: int, seed: int
) -> None:
    loop = Loop(fifo(seed, replay_fraction=fraction, window=window), batch)
    for step in range(1, 7):
        fresh, trained = loop.step(step)
        assert len(fresh) == loop.buffer.fresh_share(batch)
        assert trained[: len(fresh)] == fresh
        replayed = trained[len(fresh) :]
        stock = [g for s in range(max(1, step - window), step) for g in loop.made[s]]
        assert len(replayed) == min(batch - len(fresh), len(stock)), "as many as there is room for"
        assert all(group in stock for group in ids(replayed)), "whole, and of the window's steps"
        assert len({tuple(group) for group in ids(trained)}) == len(trained), "none twice"
        assert len(loop.buffer) == 3 * sum(
            len(loop.made[s]) for s in range(max(1, step - window + 1), step + 1)
        )
        assert loop.buffer.stats() == {"groups": len(loop.buffer) / 3}


@given(batch=st.integers(1, 6), seed=st.integers(0, 9))
def test_replaying_nothing_is_on_policy(batch: int, seed: int) -> None:
    nothing, policy = fifo(seed, replay_fraction=0), OnPolicy()
    a, b = Loop(nothing, batch), Loop(policy, batch)
    for step in range(1, 5):
        assert ids(a.step(step)[1]) == ids(b.step(step)[1])


def ages_drawn(buffer: Fifo, steps: int, batch: int = 4) -> Counter[int]:
    """How often each age is the first to be replayed, once the window is full."""
    loop, found = Loop(buffer, batch), Counter[int]()
    window = buffer.config.window
    for step in range(1, steps + window + 1):
        fresh, trained = loop.step(step)
        if step > window:
            found[age(trained[len(fresh)], step)] += 1
    return found


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        (None, [1 / 3, 1 / 3, 1 / 3]),
        ((6.0, 3.0, 1.0), [0.6, 0.3, 0.1]),
        ((0.0, 0.0, 5.0), [0, 0, 1]),
    ],
)
def test_the_first_draw_follows_the_weights_of_the_ages(
    weights: tuple[float, ...] | None, shares: list[float]
) -> None:
    """1000 draws: within four standard deviations, at most 0.063."""
    drawn = ages_drawn(fifo(window=3, age_weights=weights), 1000)
    assert sum(drawn.values()) == 1000
    for at, share in enumerate(shares, start=1):
        assert drawn[at] / 1000 == pytest.approx(share, abs=4 * (share * (1 - share) / 1000) ** 0.5)


def test_groups_of_an_age_are_drawn_evenly() -> None:
    """Which of a step's three groups comes first: each about a third of 900 draws."""
    loop, found = Loop(fifo(window=1, replay_fraction=0.4), 5), Counter[int]()
    for step in range(1, 901):
        fresh, trained = loop.step(step)
        if step > 1:
            found[loop.made[step - 1].index(ids(trained[len(fresh) :])[0])] += 1
    assert [found[i] / 899 for i in range(3)] == pytest.approx([1 / 3] * 3, abs=0.063)


def test_an_age_that_runs_out_hands_its_share_to_the_others() -> None:
    """One fresh group per step and four places: both ages are used up, whatever their weights."""
    loop = Loop(fifo(window=2, replay_fraction=0.8, age_weights=[1.0, 99.0]), 5)
    for step in (1, 2):
        loop.step(step)
    fresh, trained = loop.step(3)
    assert sorted(age(g, 3) for g in trained[len(fresh) :]) == [1, 2]


def test_ages_of_weight_zero_are_never_drawn_even_when_the_batch_stays_short() -> None:
    loop = Loop(fifo(window=2, replay_fraction=0.8, age_weights=[1.0, 0.0]), 5)
    for step in (1, 2):
        loop.step(step)
    fresh, trained = loop.step(3)
    assert [age(g, 3) for g in trained[len(fresh) :]] == [1]


def test_the_draw_depends_on_the_seed_and_the_step_alone() -> None:
    def run(seed: int) -> list[list[list[int]]]:
        loop = Loop(fifo(seed, window=4), 10)
        return [ids(loop.step(step)[1]) for step in range(1, 9)]

    assert run(1) == run(1) != run(2)
    loop = Loop(fifo(1, window=4), 10)
    for step in range(1, 9):
        loop.step(step)
    np.random.default_rng(0).random(100)
    torch.rand(100)
    assert ids(loop.buffer.build([], 10, 9)) == ids(loop.buffer.build([], 10, 9))
    assert ids(loop.buffer.build([], 10, 9)) != ids(loop.buffer.build([], 10, 10))


def test_a_resumed_buffer_draws_the_same_groups_with_the_same_contents() -> None:
    loop = Loop(fifo(3, window=3), 8)
    for step in range(1, 6):
        loop.step(step)
    again = fifo(3, window=3)
    Loop(again, 8).step(5)
    again.load_state_dict(stored(loop.buffer.state_dict()))
    ours, theirs = (b.build([], 8, 6) for b in (loop.buffer, again))
    assert ids(ours) == ids(theirs) and len(ours) == 4
    for a, b in zip(ours, theirs, strict=True):
        assert same(a, b)


def test_a_column_that_no_checkpoint_can_keep_is_refused_when_it_is_stored() -> None:
    prompts, rollouts = FakePrompts(), FakeRollouts()
    (prompt,) = prompts.take(1)
    odd = replace(prompt, columns={"answer": "4", "meta": {"when": [object()]}})
    with pytest.raises(UserError, match="column 'meta' of a prompt holds a object"):
        fifo().add([rollouts.group(odd, 1, step=1)], 1)


def test_a_replayed_group_keeps_its_stored_log_probs() -> None:
    loop = Loop(fifo(window=1), 5)
    before = {s.sample_id: s.behavior_logp.clone() for g in loop.step(1)[0] for s in g.samples}
    fresh, trained = loop.step(2)
    for sample in (s for g in trained[len(fresh) :] for s in g.samples):
        assert torch.equal(sample.behavior_logp, before[sample.sample_id])


def test_clear_forgets_and_the_next_batch_is_fresh_alone() -> None:
    loop = Loop(fifo(), 5)
    loop.step(1)
    loop.buffer.clear()
    fresh, trained = loop.step(2)
    assert trained == fresh and len(fresh) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"age_weights": [1.0]}, "needs one weight for each of the 2 ages"),
        ({"age_weights": [0.0, 0.0]}, "not all zero"),
        ({"age_weights": [1.0, -1.0]}, "greater than or equal to 0"),
        ({"replay_fraction": 1.0}, "less than 1"),
        ({"window": 0}, "greater than or equal to 1"),
        ({"age_law": "optimal", "batch_multiple": 3.5}, "window=2 must be at least .* = 2.5"),
        ({"age_law": "optimal", "batch_multiple": 1}, "leaves the stored ages no weight"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("buffer", "fifo", **fields)


@pytest.mark.parametrize(
    ("fields", "shares"),
    [
        ({}, (1, 1, 1, 1)),
        ({"age_law": "geometric"}, (1, 0.5, 0.25, 0.125)),
        ({"age_law": "linear", "age_decay": 0.4}, (1, 0.6, 0.2, 0)),
        ({"age_law": "linear", "age_decay": 0}, (1, 1, 1, 1)),
        ({"age_weights": (4, 3, 2, 1)}, (4, 3, 2, 1)),
        ({"age_law": "optimal"}, (0.3, 0.2, 0.1, 0)),
        ({"age_law": "optimal", "kappa": 0}, (1 / 3, 1 / 3 - (1 / 12) ** 0.5, 0, 0)),
        ({"age_law": "optimal", "batch_multiple": 3}, (0.2, 0.2, 0.2, 0.2)),
    ],
)
def test_laws_of_the_ages(fields: dict[str, Any], shares: tuple[float, ...]) -> None:
    """Optimal: of five policies the newest is the fresh one, with the share 0.4 for B = 2."""
    assert age_shares(FifoConfig(window=4, **fields)) == pytest.approx(shares)


def test_the_draw_follows_a_law() -> None:
    drawn = ages_drawn(fifo(window=3, age_law="geometric"), 1000)
    for at, share in enumerate((4 / 7, 2 / 7, 1 / 7), start=1):
        assert drawn[at] / 1000 == pytest.approx(share, abs=0.063)


def test_groups_over_age_are_dropped_or_replayed_last() -> None:
    """Weights as old as the step that made the group; two groups per step, three places."""
    found = {}
    for over_age in ("drop", "keep"):
        loop = Loop(fifo(window=3, replay_fraction=0.6, max_age=1, over_age=over_age), 5)
        for step in range(1, 4):
            loop.step(step)
        fresh, trained = loop.step(4)
        found[over_age] = [age(g, 4) for g in trained[len(fresh) :]]
    assert found["drop"] == [1, 1]
    assert found["keep"][:2] == [1, 1] and found["keep"][2] in (2, 3)


def test_the_most_that_geppo_can_mix_and_less_are_allowed() -> None:
    """Three policies are three batches only if they weigh alike; other laws have no such limit."""
    assert age_shares(FifoConfig(age_law="optimal", batch_multiple=3)) == pytest.approx([1 / 3] * 2)
    assert FifoConfig(batch_multiple=9).batch_multiple == 9


def test_a_law_beside_weights_is_refused() -> None:
    with pytest.raises(UserError, match="set one of them"):
        build("buffer", "fifo", age_weights=[1.0, 1.0], age_law="linear")


@pytest.mark.parametrize(
    ("share", "groups", "window", "told"),
    [(0.6, 20, 2, None), (0.7, 20, 2, "holds 12, and 14 places"), (0.6, 20, 1, "holds 8, and 12")],
)
def test_a_share_that_the_window_cannot_fill_is_told(
    share: float, groups: int, window: int, told: str | None
) -> None:
    buffer = Fifo(FifoConfig(replay_fraction=share, window=window))
    found = buffer.out_of_reach(RunSize(steps=100, groups=groups, num_generations=8))
    assert found is None if told is None else told in str(found)
