"""What buffers of whole groups share: where they keep them, and how many a step generates."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, TypeVar

from pydantic import Field

from buffers.replay import StorageConfig, fresh_groups
from buffers.rows import Rows
from buffers.shards import open_storage
from buffers.storage import MemoryStorage
from rlkit.batch import Group
from rlkit.interfaces import ReplayBuffer


class WholeGroupsConfig(StorageConfig):
    """Settings of every buffer that keeps whole groups."""

    replay_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of a batch that is replayed; the rest is generated."""


W = TypeVar("W", bound=WholeGroupsConfig)


class WholeGroups(ReplayBuffer[W]):
    """Keeps groups in `rows`, in the column `stored`, oldest first."""

    rows: Rows

    @cached_property
    def storage(self) -> MemoryStorage:
        """Where the groups are; made when it is first needed, after `open`."""
        return open_storage(self.config.storage, self)

    @property
    def groups(self) -> list[Group]:
        """Every stored group, oldest first; loaded if it is on disk."""
        return [item.group for item in self.rows["stored"]]

    def fresh_share(self, batch: int) -> int:
        """max(1, B - ceil(p B)), also while the buffer is empty."""
        return fresh_groups(batch, self.config.replay_fraction)
