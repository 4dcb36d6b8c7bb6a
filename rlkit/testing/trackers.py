"""What a tracker must do."""

from __future__ import annotations

import tempfile
from typing import Any

from rlkit.config.run import RunConfig
from rlkit.interfaces import Tracker
from rlkit.testing.base import require

EVALUATION = {"eval/pass@1": 0.25, "rollouts/total": 0.0}
STEP = {"policy/loss": -0.5, "reward/mean": 0.5, "rollouts/total": 8.0}


def settings(folder: str) -> dict[str, Any]:
    """A run's configuration."""
    return RunConfig(output_dir=folder).model_dump(mode="json") | {"task": {"name": "tried"}}


def life(tracker: Tracker[Any], folder: str, run_id: str | None, steps: range) -> str | None:
    """A run from its start to its end."""
    given = tracker.start(folder, settings(folder), run_id)
    for step in steps:
        tracker.log(step, STEP if step else EVALUATION)
        tracker.message(f"Step {step} is done.")
    tracker.close(failed=False)
    return given


def a_run_is_recorded_and_continued(tracker: Tracker[Any]) -> None:
    """Started, told of steps and evaluations, closed; then continued by another one."""
    with tempfile.TemporaryDirectory() as folder:
        run_id: Any = life(tracker, folder, None, range(3))
        require(run_id is None or isinstance(run_id, str), "start returns neither an id nor None")
        life(type(tracker)(tracker.config), folder, run_id, range(3, 5))


def a_run_may_fail_before_its_first_line(tracker: Tracker[Any]) -> None:
    """Closed right after the start, and without one."""
    with tempfile.TemporaryDirectory() as folder:
        started = type(tracker)(tracker.config)
        started.start(folder, settings(folder), None)
        started.close(failed=True)
        type(tracker)(tracker.config).close(failed=True)


TRACKER = (a_run_is_recorded_and_continued, a_run_may_fail_before_its_first_line)
