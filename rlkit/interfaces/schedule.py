"""What changes during a run: replay, passes, rebirths, and values of fields."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rlkit.errors import UserError, kind_of, suggest
from rlkit.interfaces.part import C, Part
from rlkit.plugins import mistakes_of


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the run is, before step `step` begins."""

    step: int
    steps: int
    rollouts: int
    metrics: Mapping[str, float]
    """The previous step's metrics."""
    eval: Mapping[str, float]
    """The latest evaluation."""
    eval_step: int = 0
    """The step after which it ran; 0 = before training."""


Event = Literal["rebase", "clear_buffer", "reset_optimizer"]


EVENTS: frozenset[str] = frozenset(get_args(Event))


@dataclass(frozen=True, slots=True)
class Phase:
    """How a step is run: with replay or not, how many passes, and what happens before it."""

    name: str
    replay: bool = True
    updates_per_batch: int | None = None
    """None = train.updates_per_batch."""
    events: frozenset[Event] = frozenset()
    values: Mapping[str, float] = field(default_factory=dict)
    """Config fields to set from now on, by dotted name ("anchor.beta")."""

    def __post_init__(self) -> None:
        """Raise UserError for an event that does not exist."""
        for event in set(self.events) - EVENTS:
            raise UserError(
                f"phase '{self.name}' has the event '{event}', which does not exist."
                f"{suggest(event, EVENTS)} Known: {', '.join(sorted(EVENTS))}"
            )


class ReincarnationSchedule(Part[C]):
    """Decides each step's phase."""

    @abstractmethod
    def phase(self, progress: Progress) -> Phase:
        """The phase of step `progress.step`. Events fire in the step whose phase names them."""

    def checked(self, progress: Progress) -> Phase:
        """The phase of a step. Raises UserError if the schedule returns something else."""
        with mistakes_of(f"schedule {type(self).__name__}"):
            phase: Any = self.phase(progress)
        if not isinstance(phase, Phase):
            raise UserError(
                f"schedule {type(self).__name__} returned {kind_of(phase)} for "
                f'step {progress.step}: return Phase(name="...")'
            )
        return phase

    def fields(self) -> Mapping[str, Sequence[float]]:
        """The config fields its phases set, by dotted name, each with its extreme values.

        They are checked before the run starts; none by default.
        """
        return {}
