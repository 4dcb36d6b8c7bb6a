"""Each check of a buffer catches one that is broken in its way; made-up prompts and responses."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from buffers.fifo import Fifo
from rlkit.batch import Demonstration, Group, Request, Score
from rlkit.testing import buffers as kit
from rlkit.testing.buffers import Cycle, FakePrompts, FakeRollouts, ids, scores, shown


class Empty(Fifo):
    """Builds nothing."""

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        return []


class Repeating(Fifo):
    """The same groups again and again."""

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        return (fresh * batch)[:batch]


class Changing(Fifo):
    """Raises the rewards of what it hands out."""

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        return [
            replace(g, samples=[replace(s, reward=s.reward + 1) for s in g.samples])
            for g in super().build(fresh, batch, step)
        ]


class Unseeded(Fifo):
    """Draws from the global generator."""

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        return fresh + random.sample(self.groups, min(batch - len(fresh), len(self.groups)))


class Clinging(Fifo):
    """Forgets nothing."""

    def clear(self) -> None:
        pass


class Trusting(Fifo):
    """Takes every fresh sample to have been trained."""

    def add(self, fresh: list[Group], step: int) -> None:
        self.seen = [s.sample_id for group in fresh for s in group.samples]
        super().add(fresh, step)

    def observe(self, scores: Mapping[int, Score]) -> None:
        self.advantages = [scores[name].advantage for name in getattr(self, "seen", [])]
        self.seen = []


@pytest.mark.parametrize(
    ("check", "broken", "sentence"),
    [
        (kit.batches_are_whole_and_samples_untouched, Empty, "build gives 0 groups"),
        (kit.batches_are_whole_and_samples_untouched, Repeating, "a sample twice"),
        (kit.batches_are_whole_and_samples_untouched, Changing, "build changes a sample"),
        (kit.a_resumed_buffer_draws_the_same, Unseeded, r"self\.rng\(step\)"),
        (kit.a_cleared_buffer_is_empty, Clinging, "clear.. leaves something stored"),
        (kit.skipped_updates_are_harmless, Trusting, "needs the score of sample"),
    ],
)
def test_a_broken_buffer_is_told_what_is_wrong(
    check: Callable[[Any], None], broken: type[Fifo], sentence: str
) -> None:
    check(Fifo())
    with pytest.raises(AssertionError, match=sentence):
        check(broken())


def test_made_up_prompts_are_new_each_time_and_found_again() -> None:
    prompts = FakePrompts()
    first, second = prompts.take(2)
    (third,) = prompts.take(1)
    assert len({p.prompt_id for p in (first, second, third)}) == 3
    assert prompts.get(second.prompt_id) is second


def test_made_up_responses_are_numbered_and_bring_the_demonstrations_asked_for() -> None:
    prompts, rollouts = FakePrompts(), FakeRollouts()
    one, two = prompts.take(2)
    shown_one = Demonstration(number=4, response_ids=torch.tensor([3, 1]), reward=0.25)
    groups = rollouts.groups(
        [Request(prompt=one, n=2), Request(prompt=two, n=1, demonstrations=(shown_one,))], 6
    )
    found = [s for g in groups for s in g.samples]
    assert len({s.sample_id for s in found}) == 4 and found[-1].sample_id == -4
    assert all(s.step == 6 for s in found) and found[-1].reward == 0.25
    expert = shown(two, replace(shown_one, reward=None), 6)
    assert expert.source == "expert" and expert.reward == 1.0
    assert ids(groups) == [[s.sample_id for s in g.samples] for g in groups]


def test_a_cycle_shows_the_buffer_what_it_generated_and_trained() -> None:
    cycle = Cycle(kit.fresh_copy(Fifo()))
    for step in range(1, 4):
        trained = cycle.step(step)
        assert len(trained) <= kit.BATCH
    assert len(cycle.buffer) > 0 and len(cycle.made) >= len(cycle.buffer)
    found = scores(trained)
    for sample in (s for g in trained for s in g.samples):
        torch.testing.assert_close(found[sample.sample_id].logp, sample.behavior_logp - 0.1)
