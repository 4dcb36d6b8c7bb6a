from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlkit.environments.journal import Journal, new_start
from rlkit.errors import UserError


def test_episodes_are_known_to_the_next_start_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "called-once"
    first = Journal(path)
    assert not first.earlier
    for episode in (2**62 + 1, 7, 7):
        first.note(episode)
    assert len(path.read_text().splitlines()) == 2, "each is noted once"
    assert not Journal(path).earlier, "another stage of the same start"
    monkeypatch.setattr(os, "getpid", lambda: 1)
    second = Journal(path)
    assert second.earlier == {2**62 + 1, 7}
    second.note(8)
    assert Journal(path).earlier == {2**62 + 1, 7}
    path.write_text(path.read_text() + "half")
    assert Journal(path).earlier == {2**62 + 1, 7}


def test_a_run_that_is_started_again_in_the_same_process_is_another_start(tmp_path: Path) -> None:
    """A notebook: the first one was interrupted. And its folder may be another."""
    first = Journal(tmp_path / "old" / "called-once")
    first.note(3)
    assert not Journal(first.path).earlier
    new_start()
    assert Journal(first.path).earlier == {3}
    second = Journal(tmp_path / "new" / "called-once", [first.path, tmp_path / "nowhere"])
    assert second.earlier == {3}
    second.note(4)
    assert first.path.read_text().split()[1:] == ["3"], "it is read alone"


def test_what_cannot_be_noted_is_not_called(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written.*resume=auto"):
        Journal(tmp_path / "file" / "called-once").note(1)


def test_a_line_that_was_cut_short_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk takes half a line; when there is room again the next note has its own."""
    path, whole = tmp_path / "called-once", os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, line: whole(file, line[:-3]))
        with pytest.raises(UserError, match="No space left on device; make room"):
            Journal(path).note(123456)
    path.write_text(path.read_text() + "x")
    Journal(path).note(456)
    new_start()
    assert Journal(path).earlier == {456}
