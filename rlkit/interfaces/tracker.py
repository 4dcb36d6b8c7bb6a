"""The interface of a tracker: where metrics, responses and checkpoints are shown."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.interfaces.part import C, Part


class Tracker(Part[C]):
    """Receives metrics, and, if it asks for them, responses and checkpoints.

    Nothing that it does may change what a run computes.
    """

    @abstractmethod
    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Begin, or continue the run `run_id`; return the id to continue with later, if any."""

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one training step or one evaluation."""

    def wants_samples(self, step: int) -> bool:
        """Whether `log_samples` is called for the responses of this training step."""
        return False

    def log_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record responses that a step trained on, before the step's metrics come.

        Each has prompt (text or messages), response, reward, rewards (by name), age, length,
        finish_reason, advantage and, unless its update was skipped, ratio: the mean over its tokens
        of its advantage, and of its ratio to the policy that sampled it.
        """

    def log_checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint lies at `path`; later ones may replace it."""

    def begin(self, step: int) -> None:
        """Called after `start`: the run goes on after `step`, which is 0 for a new one."""

    def message(self, text: str) -> None:
        """Show the user a line."""

    def progress(self, task: str, done: int, of: int) -> None:
        """Show the user how far a task inside a step is; many such calls may come."""

    def close(self, *, failed: bool) -> None:
        """End the run."""
