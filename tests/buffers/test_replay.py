"""What replay buffers share, and the training loop's order for the tests of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from buffers.replay import AgeConfig, by_age, fresh_groups, sample_staleness, staleness
from rlkit.batch import Group, Prompt, Sample
from rlkit.testing.base import stored
from rlkit.testing.buffers import FakePrompts, FakeRollouts, ids, scores
from tests.cli import SMALL, metrics, run

CRITICAL = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52}
"""Chi-square is exceeded with a chance of 0.001, by degrees of freedom."""
REVISITS = (
    *("task.operands=2", "train.prompts_per_step=34", "rollout.num_generations=4"),
    *("rollout.max_completion_length=5", "eval.problems=2"),
)
"""Half of the 68 sums of two digits per step: the third step meets the first step's prompts."""


class FewPrompts(FakePrompts):
    """Prompts that come round again."""

    def __init__(self, different: int, num_generations: int = 4) -> None:
        super().__init__(num_generations=num_generations)
        self.made = super().take(different)
        self.taken = 0

    def take(self, n: int) -> list[Prompt]:
        found = [self.made[(self.taken + i) % len(self.made)] for i in range(n)]
        self.taken += n
        return found


class Cycle:
    """A buffer in the training loop's order; `reward` may replace a response's."""

    def __init__(
        self,
        buffer: Any,
        batch: int,
        prompts: FakePrompts | None = None,
        reward: Callable[[Sample], float] | None = None,
    ) -> None:
        self.buffer, self.batch, self.reward = buffer, batch, reward
        self.prompts, self.rollouts = prompts or FakePrompts(), FakeRollouts()

    def step(self, step: int) -> tuple[list[Group], list[Group]]:
        """The fresh groups and the trained ones."""
        fresh = self.rollouts.groups(self.buffer.plan(self.batch, step, self.prompts), step)
        if self.reward is not None:
            fresh = [replace(g, samples=[self._paid(s) for s in g.samples]) for g in fresh]
        wanted = self.buffer.scores_wanted(step)
        self.buffer.observe(scores([Group(prompt=fresh[0].prompt, samples=wanted)]))
        trained = self.buffer.build(fresh, self.batch, step)
        self.buffer.add(fresh, step)
        self.buffer.observe(scores(trained))
        return fresh, trained

    def _paid(self, sample: Sample) -> Sample:
        assert self.reward is not None
        return replace(sample, reward=self.reward(sample))


def check_resumes(make: Callable[[], Any], cycle: Cycle, start: int = 8) -> None:
    """From `start` on, a buffer with the saved state trains the same in 20 steps."""
    for step in range(1, start):
        cycle.step(step)
    again = copy.copy(cycle)
    again.prompts, again.rollouts = copy.deepcopy((cycle.prompts, cycle.rollouts))
    again.buffer = make()
    again.buffer.load_state_dict(stored(cycle.buffer.state_dict()))
    replayed = 0
    for step in range(start, start + 20):
        fresh, trained = cycle.step(step)
        assert ids(trained) == ids(again.step(step)[1])
        assert cycle.buffer.stats() == again.buffer.stats()
        replayed += sum(len(g.samples) for g in trained) - sum(len(g.samples) for g in fresh)
    assert replayed > 0, "the comparison must see replay"
    assert len(cycle.buffer) == len(again.buffer)


def check_frequencies(found: Mapping[Hashable, int], shares: Mapping[Hashable, float]) -> None:
    """Pearson's chi-square against the shares, which sum to 1."""
    total = sum(found.values())
    assert set(found) <= {key for key, share in shares.items() if share > 0}
    assert sum(shares.values()) == pytest.approx(1)
    expected = {key: total * share for key, share in shares.items() if share > 0}
    value = sum((found.get(key, 0) - e) ** 2 / e for key, e in expected.items())
    assert value < CRITICAL[len(expected) - 1], dict(found)


def check_real_run(*args: str, cwd: Path) -> list[dict[str, float]]:
    """Three steps through the command line; the metrics of training."""
    out = run(*SMALL, "train.steps=3", *args, "output_dir=out", cwd=cwd)
    assert out.status == 0, out.err
    rows = [row for row in metrics(cwd / "out") if "buffer/size" in row]
    assert len(rows) == 3
    return rows


def check_real_run_that_revisits(*args: str, cwd: Path) -> list[dict[str, float]]:
    """The same on so few prompts that the third step meets the first one's.

    The embedded model is for another task, so its copy in a checkpoint is trained.
    """
    out = run(*SMALL, "train.steps=1", "output_dir=first", cwd=cwd)
    assert out.status == 0, out.err
    return check_real_run(*REVISITS, "model.name=first/checkpoint-1", *args, cwd=cwd)


def one(made: int, step: int = 1, n: int = 2) -> Group:
    """A group of n responses of which the first has the number `made`."""
    rollouts = FakeRollouts()
    rollouts.made = made - 1
    return rollouts.group(FakePrompts().take(1)[0], n, step)


def test_the_fresh_share_is_rounded_down_but_never_zero() -> None:
    """153 of 256 is ReMix's count; 0.55 * 100 is 55, not 56 by binary rounding."""
    assert [fresh_groups(b, p) for b, p in [(256, 0.4), (100, 0.55), (3, 0.99)]] == [153, 45, 1]


def test_staleness_is_that_of_the_oldest_token() -> None:
    group = one(1, step=5)
    old = replace(group.samples[1], policy_version=torch.tensor([5, 3], dtype=torch.int32))
    assert staleness(group, 5) == 0
    assert staleness(replace(group, samples=[group.samples[0], old]), 6) == 3
    assert [sample_staleness(s, 6) for s in (group.samples[0], old)] == [1, 3]


def test_a_response_without_a_token_is_never_stale() -> None:
    group = one(1, step=5)
    empty = replace(group.samples[0], policy_version=torch.zeros(0, dtype=torch.int32))
    assert sample_staleness(empty, 9) == 0
    assert staleness(replace(group, samples=[empty]), 9) == 0


def test_items_over_age_are_dropped_or_a_tier_of_their_own() -> None:
    ages = [3, 1, 2, 4, 2]

    def tiers(**fields: Any) -> list[list[int]]:
        return by_age(ages, lambda age: age, AgeConfig(**fields))

    assert tiers() == tiers(over_age="keep") == [ages]
    assert tiers(max_age=2) == [[1, 2, 2]]
    assert tiers(max_age=2, over_age="keep") == [[1, 2, 2], [3, 4]]
