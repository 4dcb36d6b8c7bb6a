"""No replay: every step trains on the responses it generated."""

from __future__ import annotations

from rlkit.batch import Group
from rlkit.interfaces import C, PartConfig, ReplayBuffer
from rlkit.registry import register


class Storeless(ReplayBuffer[C]):
    """A buffer that trains what its plan asked for, and stores nothing."""

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups."""
        return fresh

    def add(self, fresh: list[Group], step: int) -> None:
        """Store nothing."""

    def clear(self) -> None:
        """Nothing to forget."""

    def __len__(self) -> int:
        return 0


class OnPolicyConfig(PartConfig):
    """Nothing to set."""


@register("buffer", "on_policy")
class OnPolicy(Storeless[OnPolicyConfig]):
    """Trains the fresh groups and stores nothing.

    Status: exact.
    """

    sources = ()
