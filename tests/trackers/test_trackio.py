"""Trackio, with a stand-in for the library."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rlkit
from rlkit.errors import UserError
from rlkit.testing import check_tracker
from rlkit.trackers.samples import COLUMNS
from rlkit.trackers.trackio import TrackioConfig, TrackioTracker


class Run:
    def __init__(self, **given: Any) -> None:
        self.given, self.name = given, given["name"]
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def log(self, metrics: dict[str, Any], step: int) -> None:
        self.rows.append((step, metrics))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = ModuleType("trackio")
    module.runs = []

    def init(**given: Any) -> Run:
        module.runs.append(Run(**given))
        return module.runs[-1]

    module.init = init
    module.Table = lambda columns, data: (columns, data)
    module.Histogram = lambda values: tuple(values)
    monkeypatch.setitem(sys.modules, "trackio", module)
    return module


CONFIG = {"algorithm": "grpo", "loss": {"name": "ppo"}}
ROWS = [{"prompt": "p", "response": str(r), "reward": r, "age": 0} for r in range(3)]


def test_a_run_has_settings_metrics_and_samples(library: Any, tmp_path: Path) -> None:
    tracker = TrackioTracker(TrackioConfig(project="mine", samples=1))
    assert tracker.start(str(tmp_path), CONFIG, None) == tmp_path.name
    assert [step for step in range(1, 12) if tracker.wants_samples(step)] == [1, 11]
    tracker.log_samples(1, ROWS)
    tracker.log(1, {"reward/mean": 0.5})
    tracker.close(failed=False)
    (run,) = library.runs
    assert run.given["project"] == "mine" and run.given["resume"] == "never"
    assert run.given["group"].startswith("grpo-")
    assert run.given["config"] == {"algorithm": "grpo", "loss": "ppo"}
    (step, samples), metrics = run.rows
    assert step == 1 and metrics == (1, {"reward/mean": 0.5}) and run.finished
    columns, (shown,) = samples["samples"]
    assert columns == list(COLUMNS) and shown[2] == "2"
    assert samples["samples/reward"] == (0.0, 1.0, 2.0)


def test_a_resumed_run_logs_no_step_twice(library: Any, tmp_path: Path) -> None:
    run_id: str | None = None
    for steps in (range(5), range(3, 7)):
        tracker = TrackioTracker(TrackioConfig(run_name="mine"))
        run_id = tracker.start(str(tmp_path), CONFIG, run_id)
        for step in steps:
            tracker.log_samples(step, ROWS)
            tracker.log(step, {"a": 1.0})
        tracker.close(failed=True)
    first, second = library.runs
    assert (second.given["name"], second.given["resume"]) == ("mine", "allow")
    logged = [step for run in (first, second) for step, row in run.rows if "a" in row]
    assert logged == list(range(7))


def test_what_it_refuses_is_one_line(library: Any, tmp_path: Path) -> None:
    def refuse(**given: Any) -> None:
        raise ValueError("no\nspace")

    library.init = refuse
    with pytest.raises(UserError, match="Trackio did not start: no space"):
        TrackioTracker().start(str(tmp_path), CONFIG, None)


def test_the_contract_of_trackers_holds(library: Any) -> None:
    check_tracker(rlkit.build("tracker", "trackio"))
