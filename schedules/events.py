"""Settings of what a firing of a schedule does, shared by those that fire more than once."""

from __future__ import annotations

from rlkit.interfaces import Event, PartConfig


def fired(*, rebase: bool = True, clear_buffer: bool, reset_optimizer: bool) -> frozenset[Event]:
    """The events that are wanted."""
    wanted: dict[Event, bool] = {
        "rebase": rebase,
        "clear_buffer": clear_buffer,
        "reset_optimizer": reset_optimizer,
    }
    return frozenset(event for event, fires in wanted.items() if fires)


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
        return fired(
            rebase=self.rebase,
            clear_buffer=self.clear_buffer,
            reset_optimizer=self.reset_optimizer,
        )
