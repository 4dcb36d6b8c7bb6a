"""What a run has asked of tools that must not be asked twice, in a file that outlives a kill."""

from __future__ import annotations

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
            int(words[1]) for words in known if len(words) == 2 and words[0] != own_name()
        )
        """Episodes that an earlier start has noted: if one begins, it begins again."""
        self._noted: set[int] = set()

    def note(self, episode: int) -> None:
        """Note an episode, on the disk when this returns. Raises UserError if it cannot be."""
        if episode in self._noted:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(file, f"{own_name()} {episode}\n".encode())
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; make room and continue with "
                "resume=auto"
            ) from error
        self._noted.add(episode)
