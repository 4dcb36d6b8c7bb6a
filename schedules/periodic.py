"""A rebirth every so many steps."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlkit.interfaces import Phase, Progress, ReincarnationSchedule, RunSize
from rlkit.registry import register
from schedules.events import EventsConfig


class PeriodicConfig(EventsConfig):
    """Settings of the period."""

    every: Annotated[int, Field(ge=1)] = 50
    """Steps between two firings; the first is before step `every` + 1."""


@register("schedule", "periodic")
class Periodic(ReincarnationSchedule[PeriodicConfig]):
    """Fires before the steps every + 1, 2 every + 1, ...: by default the policy becomes its base.

    Status: our choice. Periodic resets are known from other fields (arXiv:2205.07802); for language
    models only the optimizer and the reference are reset, never a layer.

    Public code: slime resets its optimizer each rollout with --reset-optimizer-states.
    """

    sources = ("2205.07802",)

    def out_of_reach(self, run: RunSize) -> str | None:
        """The first firing."""
        every = self.config.every
        return run.ends_by(every, f"it fires every {every} steps", "set a smaller schedule.every")

    def phase(self, progress: Progress) -> Phase:
        """The phase "train", with the events in the steps that follow a whole period."""
        fires = progress.step > 1 and (progress.step - 1) % self.config.every == 0
        return Phase(name="train", events=self.config.events() if fires else frozenset())
