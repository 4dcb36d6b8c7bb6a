"""What a tracker need not define."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlkit.interfaces import Tracker


class OwnTracker(Tracker):
    """Only its base."""

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        raise AssertionError

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        raise AssertionError


def test_what_is_optional_does_nothing() -> None:
    tracker = OwnTracker()
    assert not tracker.wants_samples(1)
    tracker.begin(0)
    tracker.message("a line")
    tracker.progress("sampling", 1, 2)
    tracker.log_samples(1, [])
    tracker.log_checkpoint(1, Path("step_1"))
    tracker.close(failed=False)
