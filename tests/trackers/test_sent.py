"""A step that was sent before a run was resumed is known."""

from __future__ import annotations

from pathlib import Path

from rlkit.trackers.sent import Sent


def test_a_resumed_run_knows_the_last_step_and_a_new_one_none(tmp_path: Path) -> None:
    first = Sent(tmp_path / "step", resumed=False)
    for step in range(4):
        assert first.is_new(step)
        first.note(step)
        assert first.is_new(step), "its evaluation is still to come"
    again = Sent(tmp_path / "step", resumed=True)
    assert [step for step in range(6) if again.is_new(step)] == [4, 5]
    assert Sent(tmp_path / "step", resumed=False).is_new(0)
    assert Sent(tmp_path / "none", resumed=True).is_new(0)
