"""A line that was sent before a run was resumed is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.trackers.sent import Sent


def sent(path: Path, lines: list[int], *, resumed: bool = True) -> list[int]:
    """The steps of the lines that a start sends."""
    tracker, found = Sent(path, resumed=resumed), []
    for step in lines:
        if tracker.begins(step):
            found.append(step)
            tracker.note()
    return found


def test_a_resumed_run_sends_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "step"
    assert sent(path, [0, 1, 2, 2, 3], resumed=False) == [0, 1, 2, 2, 3]
    assert sent(path, [2, 2, 3, 4]) == [4]
    assert sent(tmp_path / "none", [0, 1]) == [0, 1]
    assert sent(path, [0], resumed=False) == [0]


def test_an_evaluation_that_a_kill_kept_back_is_sent_on_resume(tmp_path: Path) -> None:
    """Its step's line of training was sent before it, and is not sent again."""
    path = tmp_path / "step"
    sent(path, [0, 1, 2], resumed=False)
    assert sent(path, [1, 2, 2, 3]) == [2, 3]


def test_samples_of_a_step_are_new_if_none_of_its_lines_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "step"
    sent(path, [0, 1], resumed=False)
    again = Sent(path, resumed=True)
    assert [step for step in range(4) if again.is_new(step)] == [2, 3]


@pytest.mark.parametrize("content", ["", "a b"])
def test_a_note_that_says_nothing_stops_no_resume(tmp_path: Path, content: str) -> None:
    path = tmp_path / "step"
    path.write_text(content)
    assert sent(path, [3]) == [3]


def test_a_step_alone_is_its_line_of_training(tmp_path: Path) -> None:
    """As earlier versions noted it."""
    path = tmp_path / "step"
    path.write_text("7")
    assert sent(path, [7, 7, 8]) == [7, 8]


def test_a_note_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tracker = Sent(tmp_path / "file" / "step", resumed=False)
    (tmp_path / "file").write_text("")
    tracker.begins(0)
    with pytest.raises(UserError, match="cannot be written"):
        tracker.note()
