"""What the user is told of a multirun: which job runs, and how the jobs compare in the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlkit.composition.sweep import own_overrides

METRICS = "metrics.jsonl"


class Multirun:
    """The jobs of a multirun, and the folders of those that ran in this process."""

    def __init__(self, jobs: Sequence[Sequence[str]]) -> None:
        self.jobs = jobs
        self.folders: list[Path] = []

    def line(self, number: int) -> str:
        """Job `number`, from 0, in words: "job 2 of 6: algorithm=grpo seed=1"."""
        own = " ".join(own_overrides(self.jobs[number], self.jobs))
        return f"job {number + 1} of {len(self.jobs)}" + (f": {own}" if own else "")

    def conclusion(self) -> list[str]:
        """The comparison of what ran here; nothing if that is a single run, or was not trained."""
        trained = [folder for folder in self.folders if (folder / METRICS).is_file()]
        if len(trained) < 2:
            return []
        # Imported here: it takes long, and nothing else of a multirun needs it.
        from rlkit.pages.comparison import table_lines

        return table_lines(trained)
