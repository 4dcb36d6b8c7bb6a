"""Up to which line a tracker has sent a run, so that a resumed one sends none twice."""

from __future__ import annotations

from pathlib import Path

from rlkit.stored.files import write_whole


class Sent:
    """A file in the run's folder with the last step that was sent, and how many lines of it.

    A step has one line of training and perhaps one of an evaluation. A run that was killed between
    them sends the second one when it is resumed.
    """

    def __init__(self, path: Path, *, resumed: bool) -> None:
        self.path = path
        self.before = _read(path) if resumed else (-1, 0)
        """The last line that was sent before this start: its step, and its place there from 1."""
        self.now = (-1, 0)
        """The line that is sent now."""

    def begins(self, step: int) -> bool:
        """Go on to the next line, which is of this step; whether it was not sent before."""
        last, place = self.now
        self.now = (step, place + 1 if last == step else 1)
        return self.now > self.before

    def is_new(self, step: int) -> bool:
        """Whether nothing of a step was sent before this start."""
        return step > self.before[0]

    def note(self) -> None:
        """The line is sent. Raises UserError if the system refuses the file (a full disk)."""
        write_whole(self.path, f"{self.now[0]} {self.now[1]}", flushed=False)


def _read(path: Path) -> tuple[int, int]:
    """What is noted; a file that is not there or says nothing stands for nothing sent."""
    try:
        step, *place = map(int, path.read_text().split())
    except (OSError, ValueError):
        return -1, 0
    return step, place[0] if place else 1
