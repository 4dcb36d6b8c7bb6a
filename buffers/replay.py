"""What replay buffers share: the fresh share, weighted draws, and a stock of groups with counts."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field

from buffers.storage import group_from_state, group_state, plain
from rlkit.batch import Group
from rlkit.interfaces import PartConfig, ReplayBuffer, State

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def fresh_groups(batch: int, replay_fraction: float) -> int:
    """max(1, B - ceil(p B)); 1e-9 is for decimal rounding."""
    return max(1, batch - math.ceil(replay_fraction * batch - 1e-9))


def staleness(group: Group, step: int) -> int:
    """Steps since the oldest weights that sampled a token of the group; 0 for a group without one.

    A training step trains pi_step, so a group made this step has staleness 0.
    """
    versions = [int(s.policy_version.min()) for s in group.samples if len(s.policy_version)]
    return step - min(versions, default=step)


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
    drawn: list[Item] = []
    while left and len(drawn) < count:
        keys = list(left)
        total = sum(weights[key] for key in keys)
        key = keys[rng.choice(len(keys), p=[weights[key] / total for key in keys])]
        drawn.append(left[key].pop(rng.integers(len(left[key]))))
        if not left[key]:
            del left[key]
    return drawn


@dataclass(kw_only=True)
class Entry:
    """A stored group and what happened to it since."""

    group: Group
    uses: int
    """How many steps trained on it, the one that generated it included."""
    last_used: int
    """The last of them."""
    advantage: list[float] = field(default_factory=list)
    """The advantage of each response when it was last trained; empty = not seen yet."""
    noise: float = 0.0
    """What was added to its priority."""


class StockConfig(PartConfig):
    """Settings of every buffer that keeps a stock of whole groups."""

    replay_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of a batch that is replayed; the rest is generated."""
    capacity: Annotated[int, Field(ge=1)] = 256
    """Stored groups."""
    max_age: Annotated[int, Field(ge=1)] | None = None
    """Groups sampled by weights more than this many steps back are forgotten; null = never."""


S = TypeVar("S", bound=StockConfig)


class Stock(ReplayBuffer[S]):
    """Whole groups with use counts. A subclass says which of them a step replays.

    Every fresh group is trained in the step that made it, stored afterwards, and counts as used
    once.
    """

    def __init__(self, config: S | None = None) -> None:
        super().__init__(config)
        self.entries: list[Entry] = []
        """Oldest first."""

    def fresh_share(self, batch: int) -> int:
        """max(1, B - ceil(p B)), also while the buffer is empty."""
        return fresh_groups(batch, self.config.replay_fraction)

    def keep(self, fresh: Sequence[Group], step: int) -> list[Entry]:
        """Store fresh groups; nothing is evicted yet. Returns the new entries.

        Raises UserError when a prompt's columns are no plain values, which no checkpoint could
        keep.
        """
        for group in fresh:
            plain(group.prompt.columns, "")
        new = [Entry(group=group, uses=1, last_used=step) for group in fresh]
        self.entries += new
        return new

    def usable(self, step: int) -> list[Entry]:
        """The entries that `max_age` allows."""
        limit = self.config.max_age
        return [e for e in self.entries if limit is None or staleness(e.group, step) <= limit]

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

    def __len__(self) -> int:
        return sum(len(entry.group.samples) for entry in self.entries)

    def state_dict(self) -> State:
        """The entries."""
        return {
            "entries": [
                {
                    "group": group_state(entry.group),
                    "uses": entry.uses,
                    "last_used": entry.last_used,
                    "advantage": list(entry.advantage),
                    "noise": entry.noise,
                }
                for entry in self.entries
            ]
        }

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.entries = []
        for kept in state["entries"]:
            rest = {name: value for name, value in kept.items() if name != "group"}
            self.entries.append(Entry(group=group_from_state(kept["group"]), **rest))
