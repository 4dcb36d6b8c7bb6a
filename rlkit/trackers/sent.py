"""Up to which step a tracker has sent a run, so that a resumed one sends no step twice."""

from __future__ import annotations

from pathlib import Path


class Sent:
    """A file in the run's folder with the last step that was sent.

    A step has one line of training and perhaps one of an evaluation; both are sent before the next
    step begins.
    """

    def __init__(self, path: Path, *, resumed: bool) -> None:
        self.path = path
        self.before = int(path.read_text()) if resumed and path.is_file() else -1
        """The last step that was sent before this start."""

    def is_new(self, step: int) -> bool:
        """Whether a step was not sent before this start."""
        return step > self.before

    def note(self, step: int) -> None:
        """A step is sent."""
        self.path.write_text(str(step))
