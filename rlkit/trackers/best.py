"""The best evaluation of a run, whatever was resumed in between."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rlkit.runs.folder import records

CORRECT = re.compile(r"eval/(?:.+/)?pass@1")
"""The metrics that have a best value."""


class Best:
    """The largest value of each pass@1 so far; metrics.jsonl holds what was before a resume."""

    def __init__(self, run_dir: Path) -> None:
        self.values: dict[str, float] = {}
        path = run_dir / "metrics.jsonl"
        for record in records(path.read_text()) if path.is_file() else ():
            self.better(record)

    def better(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """What these metrics improve, as "best/<metric>"; it is remembered."""
        found = {
            key: value
            for key, value in metrics.items()
            if CORRECT.fullmatch(key) and value > self.values.get(key, float("-inf"))
        }
        self.values |= found
        return {f"best/{key}": value for key, value in found.items()}
