"""Buffers over arrays replay the very groups that plain lists and sorts would choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from buffers.replay import staleness
from rlkit.batch import Group, Score
from rlkit.interfaces import RunContext
from rlkit.ops import stream_rng
from rlkit.registry import build
from rlkit.testing.buffers import FakePrompts, FakeRollouts, ids

BATCH, STEPS, SEED = 8, 40, 3
FRESH = 4


@dataclass
class Plain:
    """A stored group and what happened to it."""

    group: Group
    uses: int
    last_used: int
    advantage: list[float] = field(default_factory=list)

    @property
    def version(self) -> int:
        """The oldest weights that sampled a token of it."""
        return -staleness(self.group, 0)


class PlainStock:
    """A stock of groups as a list; a subclass says how tiers are drawn and what leaves."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields, self.stored = fields, list[Plain]()

    def build(self, fresh: list[Group], step: int) -> list[Group]:
        rng, drawn = stream_rng(SEED, "buffer", step), list[Plain]()
        for tier in self.tiers(step):
            drawn += self.draw(tier, BATCH - FRESH - len(drawn), step, rng)
        for entry in drawn:
            entry.uses, entry.last_used = entry.uses + 1, step
        return fresh + [entry.group for entry in drawn]

    def add(self, fresh: list[Group], step: int) -> None:
        self.stored += [Plain(group, 1, step) for group in fresh]
        limit = self.fields.get("max_age", 1000)
        if self.fields.get("over_age") != "keep":
            self.stored = [e for e in self.stored if step + 1 - e.version <= limit]
        self.stored = self.left(self.fields["capacity"])

    def observe(self, scores: Mapping[int, Score]) -> None:
        for entry in self.stored:
            names = [s.sample_id for s in entry.group.samples]
            if all(name in scores for name in names):
                entry.advantage = [scores[name].advantage for name in names]

    def tiers(self, step: int) -> list[list[Plain]]:
        limit = self.fields.get("max_age", 1000)
        young = [e for e in self.stored if step - e.version <= limit]
        old = [e for e in self.stored if step - e.version > limit]
        return [young, old] if self.fields.get("over_age") == "keep" else [young]

    def draw(
        self, tier: list[Plain], count: int, step: int, rng: np.random.Generator
    ) -> list[Plain]:
        raise NotImplementedError

    def left(self, capacity: int) -> list[Plain]:
        return self.stored[-capacity:]


class PlainPrioritized(PlainStock):
    """(priority + 0.01)^0.7 or 1 / rank^0.7, priority the mean of |A|."""

    def draw(
        self, tier: list[Plain], count: int, step: int, rng: np.random.Generator
    ) -> list[Plain]:
        count = min(count, len(tier))
        if not count:
            return []
        seen = {i: np.mean(np.abs(e.advantage)) for i, e in enumerate(tier) if e.advantage}
        top = max(seen.values(), default=1.0)
        priority = [seen.get(i, top) for i in range(len(tier))]
        weight = [(p + 0.01) ** 0.7 for p in priority]
        if self.fields["scheme"] == "rank":
            order = sorted(range(len(tier)), key=lambda i: (-priority[i], -i))
            weight = [(1 / (1 + order.index(i))) ** 0.7 for i in range(len(tier))]
        share = np.array(weight) / sum(weight)
        return [tier[i] for i in rng.choice(len(tier), count, replace=False, p=share)]


class PlainQueue(PlainStock):
    """version - 2 uses, of equal ones the newer."""

    def order(self, entries: list[Plain]) -> list[Plain]:
        number = {id(entry): i for i, entry in enumerate(self.stored)}
        return sorted(entries, key=lambda e: (2 * e.uses - e.version, -number[id(e)]))

    def draw(
        self, tier: list[Plain], count: int, step: int, rng: np.random.Generator
    ) -> list[Plain]:
        return self.order([e for e in tier if step - e.last_used >= self.fields["cooldown"]])[
            :count
        ]

    def left(self, capacity: int) -> list[Plain]:
        usable = [e for e in self.stored if e.uses < self.fields["use_limit"]]
        kept = set(map(id, self.order(usable)[:capacity]))
        return [e for e in usable if id(e) in kept]


def lagged(group: Group, rng: np.random.Generator) -> Group:
    """The group as if weights of up to three steps back had sampled its responses."""
    lags = rng.integers(4, size=len(group.samples)).tolist()
    samples = [
        replace(s, policy_version=s.policy_version - lag)
        for s, lag in zip(group.samples, lags, strict=True)
    ]
    return replace(group, samples=samples)


def scored(groups: list[Group], rng: np.random.Generator) -> dict[int, Score]:
    """Advantages with many ties; now and then the score of a response is missing."""
    return {
        s.sample_id: Score(
            logp=s.behavior_logp, entropy=1.0, advantage=float(rng.integers(-2, 3)) / 2
        )
        for group in groups
        for s in group.samples
        if rng.random() < 0.9
    }


@pytest.mark.parametrize("ages", [{}, {"max_age": 4}, {"max_age": 4, "over_age": "keep"}], ids=str)
@pytest.mark.parametrize(
    ("name", "plain", "fields"),
    [
        ("prioritized", PlainPrioritized, {"scheme": "proportional", "capacity": 1000}),
        ("prioritized", PlainPrioritized, {"scheme": "rank", "capacity": 30}),
        ("value_decay", PlainQueue, {"capacity": 20, "cooldown": 1, "use_limit": 3}),
        ("value_decay", PlainQueue, {"capacity": 1000, "cooldown": 3, "use_limit": 9}),
    ],
)
def test_a_stock_replays_what_lists_would(
    name: str, plain: type[PlainStock], fields: dict[str, Any], ages: dict[str, Any]
) -> None:
    fields = {**fields, **ages}
    buffer, other = build("buffer", name, replay_fraction=0.5, **fields), plain(fields)
    buffer.open(RunContext(seed=SEED))
    prompts, rollouts, rng = FakePrompts(), FakeRollouts(), np.random.default_rng(0)
    replayed = 0
    for step in range(1, STEPS):
        fresh = [lagged(rollouts.group(p, 2, step), rng) for p in prompts.take(FRESH)]
        trained = buffer.build(fresh, BATCH, step)
        assert ids(trained) == ids(other.build(fresh, step))
        scores = scored(trained, rng)
        for each in (buffer, other):
            each.add(fresh, step)
            each.observe(scores)
        assert ids(buffer.groups) == ids([entry.group for entry in other.stored])
        replayed += len(trained) - FRESH
    assert replayed > STEPS


def test_prompts_are_replayed_in_the_order_of_a_sorted_list() -> None:
    """The closest to one half first, of equal ones the longest rested."""
    buffer = build("buffer", "prompt_replay", cooldown=2, max_reuse=1000, low=0, high=1)
    prompts, rollouts, rng = FakePrompts(), FakeRollouts(), np.random.default_rng(1)
    plain: dict[str, tuple[float, int]] = {}
    for step in range(1, STEPS):
        rested = [name for name, (_, last) in plain.items() if step - last >= 2]
        expected = sorted(rested, key=lambda name: abs(plain[name][0] - 0.5))[:FRESH]
        requests = buffer.plan(BATCH, step, prompts)
        assert [r.prompt.prompt_id for r in requests[: len(expected)]] == expected
        assert step < 4 or len(expected) == FRESH
        fresh = [paid(rollouts.group(r.prompt, 4, step), int(rng.integers(5))) for r in requests]
        buffer.add(fresh, step)
        for group in fresh:
            plain.pop(group.prompt.prompt_id, None)
            rate = sum(s.reward for s in group.samples) / 4
            plain[group.prompt.prompt_id] = rate, step


def paid(group: Group, successes: int) -> Group:
    """The group with so many successes."""
    samples = [replace(s, reward=float(i < successes)) for i, s in enumerate(group.samples)]
    return replace(group, samples=samples)
