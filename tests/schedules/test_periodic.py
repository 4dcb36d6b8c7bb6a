"""A rebirth every so many steps."""

from __future__ import annotations

from rlkit.registry import build
from tests.schedules.firing import at


def test_a_period_fires_after_each_whole_one() -> None:
    schedule = build("schedule", "periodic", every=3, reset_optimizer=True)
    phases = [schedule.phase(at(step, 0.0, 0)) for step in range(1, 9)]
    assert [i + 1 for i, p in enumerate(phases) if p.events] == [4, 7]
    assert phases[3].events == {"rebase", "reset_optimizer"} and phases[3].replay
