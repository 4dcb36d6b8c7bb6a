"""Settings of what a firing of a schedule does, shared by those that fire more than once."""

from __future__ import annotations

from rlkit.interfaces import Event, PartConfig


class EventsConfig(PartConfig):
    """What a firing does."""

    rebase: bool = True
    """Whether the policy becomes its own base."""
    clear_buffer: bool = False
    """Whether the stored responses are forgotten."""
    reset_optimizer: bool = False
    """Whether the optimizer's moments are forgotten."""

    def events(self) -> frozenset[Event]:
        """The events of a firing."""
        wanted: dict[Event, bool] = {
            "rebase": self.rebase,
            "clear_buffer": self.clear_buffer,
            "reset_optimizer": self.reset_optimizer,
        }
        return frozenset(event for event, fires in wanted.items() if fires)
