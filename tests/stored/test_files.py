"""A text file is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.stored.files import write_whole


def test_a_file_is_written_with_the_folders_it_is_in(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    assert write_whole(path, "é\u2028") == path
    assert path.read_text(encoding="utf-8") == "é\u2028"
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    """As `--csv /dev/stdout` needs it."""
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(real)
    write_whole(link, "x")
    assert link.is_symlink() and real.read_text() == "x"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    write_whole(pipe, "y")
    assert os.read(end, 9) == b"y" and pipe.is_fifo()
    os.close(end)


@pytest.mark.parametrize("flushed", [True, False])
def test_a_write_that_fails_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: bool
) -> None:
    path = write_whole(tmp_path / "x", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=r"x cannot be written: No space left on device"):
        write_whole(path, "new", flushed=flushed)
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_two_processes_may_write_one_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one writes it whole between this one's last byte and its rename."""
    path, rename, own = tmp_path / "x", Path.replace, os.getpid()

    def later(temporary: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", rename)
        monkeypatch.setattr(os, "getpid", lambda: own + 1)
        write_whole(path, "theirs")
        return rename(temporary, target)

    monkeypatch.setattr(Path, "replace", later)
    write_whole(path, "ours")
    assert path.read_text() == "ours" and [*tmp_path.iterdir()] == [path]
