"""No rebirth."""

from __future__ import annotations

from rlkit.interfaces import Phase
from rlkit.registry import build
from rlkit.testing.schedules import progress


def test_never_is_one_phase_with_replay() -> None:
    schedule = build("schedule", "never")
    assert all(schedule.phase(progress(s)) == Phase(name="train") for s in (1, 60, 120))
