"""What replay buffers share: the fresh share, and what may be replayed at which age."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from buffers.storage import oldest_version
from rlkit.batch import Group, Sample
from rlkit.interfaces import PartConfig

Item = TypeVar("Item")


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
