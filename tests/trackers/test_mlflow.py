"""MLflow, with a stand-in for the library: what is sent, what is not sent twice, what may fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

import rlkit
from rlkit.errors import UserError
from rlkit.testing import check_tracker
from rlkit.trackers.mlflow import AT_ONCE, LONGEST, MLflowConfig, MLflowTracker, allowed


class Client:
    """Keeps what it is sent; fails with `failure` if there is one."""

    failure: Exception | None = None
    runs: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, tracking_uri: str | None = None) -> None:
        if tracking_uri == "nowhere":
            raise ValueError("no such place")

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="7") if name == "known" else None

    def create_experiment(self, name: str) -> str:
        return f"new {name}"

    def create_run(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> Any:
        run_id = f"run-{len(self.runs)}"
        self.runs[run_id] = {
            "experiment": experiment_id,
            "name": run_name,
            "tags": tags,
            "status": "RUNNING",
            "params": {},
            "metrics": [],
            "files": {},
        }
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        self._maybe_fail()
        assert len(params) <= AT_ONCE
        for param in params:
            assert param.key not in self.runs[run_id]["params"], "MLflow refuses another value"
            self.runs[run_id]["params"][param.key] = param.value
        self.runs[run_id]["metrics"] += [(m.key, m.value, m.step) for m in metrics]

    def log_dict(self, run_id: str, tree: dict[str, Any], file: str) -> None:
        self._maybe_fail()
        self.runs[run_id]["files"][file] = json.loads(json.dumps(tree))

    def set_terminated(self, run_id: str, status: str) -> None:
        self._maybe_fail()
        self.runs[run_id]["status"] = status

    def _maybe_fail(self) -> None:
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    module: Any = ModuleType("mlflow")
    entities: Any = ModuleType("mlflow.entities")
    entities.Param = lambda key, value: SimpleNamespace(key=key, value=value)
    entities.Metric = lambda key, value, timestamp, step: SimpleNamespace(
        key=key, value=value, step=step
    )
    module.MlflowClient, module.entities = Client, entities
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setattr(Client, "runs", {})
    monkeypatch.setattr(Client, "failure", None)
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return Client


ROWS = [{"prompt": "p", "response": str(r), "reward": r, "age": 0} for r in range(3)]
CONFIG = {"algorithm": "grpo", "seed": 1, "loss": {"name": "ppo", "clip_low": 0.2}}


def test_a_run_is_sent_with_names_that_mlflow_takes(library: type[Client], tmp_path: Path) -> None:
    tracker = MLflowTracker(MLflowConfig(samples=2))
    run_id = tracker.start(str(tmp_path), {**CONFIG, "long": "x" * 9000}, None)
    assert run_id == "run-0"
    tracker.log_samples(1, ROWS)
    tracker.log(1, {"eval/pass@1": 0.5, "schedule/anchor.beta": 0.1})
    tracker.close(failed=False)
    run = library.runs["run-0"]
    assert (run["experiment"], run["name"]) == ("new rlkit", tmp_path.name)
    assert run["tags"]["group"].startswith("grpo-") and run["status"] == "FINISHED"
    assert run["params"]["loss"] == "ppo" and run["params"]["loss.clip_low"] == "0.2"
    assert len(run["params"]["long"]) == LONGEST
    assert run["metrics"] == [("eval/pass_at_1", 0.5, 1), ("schedule/anchor.beta", 0.1, 1)]
    (table,) = run["files"].values()
    assert [row["response"] for row in table["samples"]] == ["0", "2"]


def test_names_keep_what_is_allowed() -> None:
    assert allowed("eval/a-b_c.d: e/pass@16") == "eval/a-b_c.d: e/pass_at_16"
    assert allowed("x[0]%") == "x_0__"


def test_settings_are_sent_in_pieces_to_the_experiment_of_the_environment(
    library: type[Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "known")
    many = {f"key{i}": i for i in range(2 * AT_ONCE + 1)}
    MLflowTracker().start(str(tmp_path), many, None)
    assert len(library.runs["run-0"]["params"]) == len(many)
    assert library.runs["run-0"]["experiment"] == "7"


def test_a_resumed_run_sends_no_step_twice(library: type[Client], tmp_path: Path) -> None:
    run_id: str | None = None
    for steps, failed in ((range(5), True), (range(3, 7), False)):
        tracker = MLflowTracker()
        run_id = tracker.start(str(tmp_path), CONFIG, run_id)
        for step in steps:
            tracker.log_samples(step, ROWS)
            tracker.log(step, {"a": step})
        tracker.close(failed=failed)
        assert library.runs["run-0"]["status"] == ("FAILED" if failed else "FINISHED")
    assert [step for _, _, step in library.runs["run-0"]["metrics"]] == list(range(7))
    assert len(library.runs) == 1


def test_a_server_that_fails_is_told_once_and_the_run_goes_on(
    library: type[Client], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = MLflowTracker()
    tracker.start(str(tmp_path), CONFIG, None)
    library.failure = ConnectionError("no\nroute")
    tracker.log(1, {"a": 1.0})
    library.failure = None
    tracker.log(2, {"a": 1.0})
    assert not tracker.wants_samples(11)
    tracker.close(failed=False)
    assert capsys.readouterr().err == (
        "rlkit: MLflow failed (no route); nothing more is sent to it, metrics.jsonl has "
        "everything\n"
    )
    assert library.runs["run-0"]["metrics"] == []


def test_a_server_that_refuses_the_start_is_one_line(library: type[Client], tmp_path: Path) -> None:
    library.failure = ConnectionError("no\nroute")
    with pytest.raises(UserError, match="MLflow did not start: no route"):
        MLflowTracker().start(str(tmp_path), CONFIG, None)
    with pytest.raises(UserError, match="MLflow did not start: no such place"):
        MLflowTracker(MLflowConfig(tracking_uri="nowhere")).start(str(tmp_path), CONFIG, None)


def test_the_contract_of_trackers_holds(library: type[Client]) -> None:
    check_tracker(rlkit.build("tracker", "mlflow"))


@pytest.mark.parametrize("name", ["mlflow", "trackio"])
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    def missing(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)

    start: Callable[..., Any] = rlkit.build("tracker", name).start
    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(UserError, match=f"tracker={name} needs .* pip install {name}$"):
        start(str(tmp_path), CONFIG, None)
