"""What a run has asked of tools that must not be asked twice, in a file that outlives a kill."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from rlkit.errors import UserError

_started = uuid4().hex


def new_start() -> None:
    """Begin another start of a run in this process; the stages of a run share one."""
    global _started
    _started = uuid4().hex


def own_name() -> str:
    """This start of the run, in this process; forks have names of their own."""
    return f"{_started}-{os.getpid()}"


class Journal:
    """Notes episodes before their call is made, and knows those of earlier starts of the run.

    The file has a line for each episode, with the start of the run that it belongs to. `others` are
    files of runs that this one continues in another folder; they are read alone.
    """

    def __init__(self, path: Path, others: Sequence[Path] = ()) -> None:
        self.path = path
        files = [file for file in (path, *others) if file.exists()]
        known = [line.split() for file in files for line in file.read_text().splitlines()]
        self.earlier = frozenset(
            int(words[1])
            for words in known
            if len(words) == 2 and words[1].isdigit() and words[0] != own_name()
        )
        """Episodes that an earlier start has noted: if one begins, it begins again. A line that a
        kill has cut short is none: its call was not made yet."""
        self._noted: set[int] = set()

    def note(self, episode: int) -> None:
        """Note an episode, on the disk when this returns. Raises UserError if it cannot be."""
        if episode in self._noted:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append(f"{own_name()} {episode}\n".encode())
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; make room and continue with "
                "resume=auto"
            ) from error
        self._noted.add(episode)

    def _append(self, line: bytes) -> None:
        """Add a whole line, behind one that was cut short too. Raises OSError if it cannot be."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        finally:
            os.close(file)
