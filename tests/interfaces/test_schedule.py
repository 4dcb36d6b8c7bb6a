"""What a phase may say."""

from __future__ import annotations

import dataclasses

import pytest

from rlkit.errors import UserError
from rlkit.interfaces import Phase, Progress, ReincarnationSchedule
from rlkit.interfaces.schedule import EVENTS


class Own(ReincarnationSchedule):
    """Only its base."""

    def phase(self, progress: Progress) -> Phase:
        raise AssertionError


def test_a_phase_by_its_name_alone_is_an_ordinary_step() -> None:
    phase = Phase(name="x")
    assert phase.replay and phase.updates_per_batch is None
    assert not phase.events and not phase.values
    with pytest.raises(dataclasses.FrozenInstanceError):
        phase.replay = False  # type: ignore[misc]


def test_the_events_the_loop_carries_out() -> None:
    assert {"rebase", "clear_buffer", "reset_optimizer"} == EVENTS
    assert Own().fields() == {}, "a schedule that sets fields declares them"


def test_an_event_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="'rebaze', which does not exist. Did you mean 'rebase'"):
        Phase(name="x", events=frozenset({"rebaze"}))  # type: ignore[arg-type]


def test_a_mistake_in_a_schedule_of_ones_own_is_told_with_its_line() -> None:
    class Misspelled(ReincarnationSchedule):
        def phase(self, progress: Progress) -> Phase:
            return Phase(name=progress.nam)  # type: ignore[attr-defined]

    said = r"^schedule Misspelled raised AttributeError: .*'nam'.* \(.*/test_schedule.py:\d+\)"
    with pytest.raises(UserError, match=said):
        Misspelled().checked(Progress(step=1, steps=2, rollouts=0, metrics={}, eval={}))


def test_a_schedule_that_returns_no_phase_is_told_so() -> None:
    class Forgets(ReincarnationSchedule):
        def phase(self, progress: Progress) -> Phase:
            return None  # type: ignore[return-value]

    seen = Progress(step=3, steps=4, rollouts=0, metrics={}, eval={})
    with pytest.raises(UserError, match=r"Forgets returned None for step 3: return Phase\(name="):
        Forgets().checked(seen)
