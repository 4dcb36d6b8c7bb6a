"""What replay buffers share: the fresh share, weighted draws, and a stock of groups with counts."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from buffers.shards import open_storage
from buffers.storage import (
    MemoryStorage,
    Stored,
    oldest_version,
    sample_from_state,
    sample_state,
)
from rlkit.batch import Group, Sample
from rlkit.interfaces import C, PartConfig, ReplayBuffer, State

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Floats = npt.NDArray[np.float64]


def fresh_groups(batch: int, replay_fraction: float) -> int:
    """max(1, B - ceil(p B)); 1e-9 is for decimal rounding."""
    return max(1, batch - math.ceil(replay_fraction * batch - 1e-9))


class AgeConfig(PartConfig):
    """Settings of every buffer that replays the policy's own responses."""

    max_age: Annotated[int, Field(ge=1)] | None = None
    """A response, or a stored group, is over age if weights of more than this many steps back
    sampled a token of it; null = never."""
    over_age: Literal["drop", "keep"] = "drop"
    """drop = what is over age is never replayed; keep = it is replayed if nothing younger is
    left."""


class StorageConfig(AgeConfig):
    """Settings of every buffer that keeps whole groups."""

    storage: Literal["memory", "disk"] = "memory"
    """Where the responses are: in memory, or in files of the run's folder with only the numbers
    that a selection reads in memory. Both give the same batches."""


def staleness(group: Group, step: int) -> int:
    """Steps since the oldest weights that sampled a token of the group; 0 for a group without one.

    A training step trains pi_step, so a group made this step has staleness 0.
    """
    oldest = oldest_version(group.samples)
    return 0 if oldest is None else step - oldest


def sample_staleness(sample: Sample, step: int) -> int:
    """Steps since the oldest weights that sampled a token of the response; 0 without a token."""
    oldest = oldest_version([sample])
    return 0 if oldest is None else step - oldest


def by_age(
    items: Iterable[Item], age: Callable[[Item], int], config: AgeConfig
) -> list[list[Item]]:
    """What may be replayed, in tiers: each is drawn from only when those before it are used up.

    All items if there is no `max_age`, else those within it, and under `keep` the others last.
    """
    items, limit = list(items), config.max_age
    if limit is None:
        return [items]
    young = [item for item in items if age(item) <= limit]
    if config.over_age == "drop":
        return [young]
    return [young, [item for item in items if age(item) > limit]]


def draw_buckets(
    rng: np.random.Generator,
    buckets: Mapping[Key, Sequence[Item]],
    weights: Mapping[Key, float],
    count: int,
) -> list[Item]:
    """At most `count` items: each picks a bucket by weight among those left, then evenly inside it.

    Without replacement, so a bucket that runs out hands its share to the others. Buckets of weight
    0 are never picked.
    """
    left = {key: list(items) for key, items in buckets.items() if items and weights[key] > 0}
    keys, shares = _shares(left, weights)
    drawn: list[Item] = []
    while left and len(drawn) < count:
        key = keys[rng.choice(len(keys), p=shares)]
        drawn.append(left[key].pop(rng.integers(len(left[key]))))
        if not left[key]:
            del left[key]
            keys, shares = _shares(left, weights)
    return drawn


def _shares(keys: Iterable[Key], weights: Mapping[Key, float]) -> tuple[list[Key], Floats]:
    keys = list(keys)
    total = sum(weights[key] for key in keys)
    return keys, np.array([weights[key] / total for key in keys])


@dataclass(kw_only=True, slots=True)
class Entry:
    """A stored group and what happened to it since."""

    stored: Stored
    uses: int
    """How many steps trained on it, the one that generated it included."""
    last_used: int
    """The last of them."""
    advantage: list[float] = field(default_factory=list)
    """The advantage of each response when it was last trained; empty = not seen yet."""
    noise: float = 0.0
    """What was added to its priority."""

    @property
    def group(self) -> Group:
        """The group; loaded at each call if it is on disk."""
        return self.stored.group

    @property
    def sample_ids(self) -> array[int]:
        """The ids of its responses, without loading them."""
        return self.stored.sample_ids

    @property
    def rewards(self) -> array[float]:
        """Their rewards."""
        return self.stored.rewards

    def staleness(self, step: int) -> int:
        """Steps since the oldest weights that sampled a token of it."""
        return self.stored.staleness(step)


class StockConfig(StorageConfig):
    """Settings of every buffer that keeps a stock of whole groups."""

    replay_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of a batch that is replayed; the rest is generated."""
    capacity: Annotated[int, Field(ge=1)] = 256
    """Stored groups."""


S = TypeVar("S", bound=StockConfig)


class Stock(ReplayBuffer[S]):
    """Whole groups with use counts. A subclass says which of them a step replays.

    Every fresh group is trained in the step that made it, stored afterwards, and counts as used
    once.
    """

    keeps_columns = True

    def __init__(self, config: S | None = None) -> None:
        super().__init__(config)
        self.entries: list[Entry] = []
        """Oldest first."""

    @cached_property
    def storage(self) -> MemoryStorage:
        """Where the groups are; made when it is first needed, after `open`."""
        return open_storage(self.config.storage, self)

    def fresh_share(self, batch: int) -> int:
        """max(1, B - ceil(p B)), also while the buffer is empty."""
        return fresh_groups(batch, self.config.replay_fraction)

    def keep(self, fresh: Sequence[Group], step: int) -> list[Entry]:
        """Store fresh groups; nothing is evicted yet. Returns the new entries.

        Raises UserError when a prompt's columns are no plain values, which no checkpoint could
        keep.
        """
        stored = self.storage.put(fresh, (entry.stored for entry in self.entries))
        new = [Entry(stored=item, uses=1, last_used=step) for item in stored]
        self.entries += new
        return new

    def usable(self, step: int) -> list[Entry]:
        """The entries that `max_age` allows, oldest first; all of them under over_age=keep."""
        limit = self.config.max_age
        if limit is None or self.config.over_age == "keep":
            return list(self.entries)
        return [entry for entry in self.entries if entry.staleness(step) <= limit]

    def tiers(self, entries: Iterable[Entry], step: int) -> list[list[Entry]]:
        """Entries by age: a tier is drawn from only when those before it are used up."""
        return by_age(entries, lambda entry: entry.staleness(step), self.config)

    def use(self, entries: Iterable[Entry], step: int) -> list[Group]:
        """Count a use of each entry; their groups."""
        used = list(entries)
        for entry in used:
            entry.uses += 1
            entry.last_used = step
        return [entry.group for entry in used]

    def stats(self) -> dict[str, float]:
        """Stored groups, and how often they were trained on average and at most."""
        uses = [entry.uses for entry in self.entries]
        return {
            "groups": float(len(uses)),
            "uses_mean": sum(uses) / max(1, len(uses)),
            "uses_max": float(max(uses, default=0)),
        }

    def clear(self) -> None:
        """Forget every group."""
        self.entries = []
        self.storage.clear()

    def __len__(self) -> int:
        return sum(len(entry.sample_ids) for entry in self.entries)

    def state_dict(self) -> State:
        """The entries."""
        numbers = [
            {
                "uses": entry.uses,
                "last_used": entry.last_used,
                "advantage": list(entry.advantage),
                "noise": entry.noise,
            }
            for entry in self.entries
        ]
        stored = self.storage.state_dict([entry.stored for entry in self.entries])
        return {"entries": {"stored": stored, "numbers": numbers}}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave.

        Raises UserError when a file it names is missing or changed.
        """
        stored = self.storage.load_state_dict(state["entries"]["stored"])
        self.entries = [
            Entry(stored=item, **numbers)
            for item, numbers in zip(stored, state["entries"]["numbers"], strict=True)
        ]


class PromptStore(ReplayBuffer[C]):
    """Single responses, kept with the prompts they answer."""

    def __init__(self, config: C | None = None) -> None:
        super().__init__(config)
        self.stored: dict[str, list[Sample]] = {}
        """Prompt id -> its responses, oldest first."""

    def clear(self) -> None:
        """Forget every response."""
        self.stored = {}

    def __len__(self) -> int:
        return sum(map(len, self.stored.values()))

    def state_dict(self) -> State:
        """The stored responses."""
        return {"samples": [sample_state(s) for stored in self.stored.values() for s in stored]}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.clear()
        for sample in map(sample_from_state, state["samples"]):
            self.stored.setdefault(sample.prompt_id, []).append(sample)
