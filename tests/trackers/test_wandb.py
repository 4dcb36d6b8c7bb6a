"""W&B: what is sent, how a run is continued, and what happens without a login."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import yaml

from rlkit.composition.chosen import told_to_trackers
from rlkit.errors import UserError
from rlkit.trackers.samples import COLUMNS
from rlkit.trackers.settings import flat_settings, group_of
from rlkit.trackers.wandb import WandbConfig, WandbTracker
from tests.cli import ROOT
from tests.compositions import raw_of
from tests.wandb_file import config_of, history, records, summary_of


@pytest.fixture(autouse=True)
def nobody_logged_in(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield
    wandb.teardown()


def files_of(folder: Path, run_id: str) -> list[Path]:
    """The offline files of a run, one per start, whole."""
    wandb.teardown()
    return sorted(folder.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))


def rows_of(folder: Path, run_id: str) -> list[dict[str, Any]]:
    """What was logged offline, start after start, without W&B's own times."""
    own = ("_timestamp", "_runtime")
    rows = [row for path in files_of(folder, run_id) for row in history(path)]
    return [{k: v for k, v in row.items() if k not in own} for row in rows]


def lived(
    folder: Path,
    *lines: tuple[int, Mapping[str, float]],
    run_id: str | None = None,
    **settings: Any,
) -> str:
    """A whole offline life of a run; its id."""
    tracker = WandbTracker(WandbConfig(mode="offline", **settings))
    found = tracker.start(str(folder), {"seed": 1}, run_id)
    assert found is not None
    for step, metrics in lines:
        tracker.log(step, metrics)
    tracker.close(failed=False)
    wandb.teardown()  # as when the process ends: the file is whole
    return found


class FakeRun:
    id = "abc"
    starting_step = 0

    def __init__(self) -> None:
        self.summary: dict[str, float] = {}
        self.artifacts: list[tuple[Any, list[str]]] = []
        self.defined: list[tuple[str, dict[str, Any]]] = []
        self.logged: list[dict[str, float]] = []
        self.exit_code: int | None = None

    def define_metric(self, name: str, **options: Any) -> None:
        self.defined.append((name, options))

    def log(self, data: dict[str, float], step: int) -> None:
        assert step == data["step"]
        self.logged.append(data)

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self.artifacts.append((artifact, aliases))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class FakeArtifact:
    def __init__(self, name: str, type: str, metadata: dict[str, int]) -> None:
        self.name, self.type, self.metadata = name, type, metadata
        self.files: list[str] = []

    def add_file(self, path: str, name: str) -> None:
        assert Path(path).is_file()
        self.files.append(name)


@pytest.fixture
def fake(monkeypatch) -> SimpleNamespace:
    """A stand-in for the library, with a login, that remembers what `init` was given."""
    run = FakeRun()
    library = SimpleNamespace(
        run=run,
        given={},
        Error=wandb.Error,
        Artifact=FakeArtifact,
        Table=lambda columns, data, allow_mixed_types: (columns, data),
        login=lambda prompt: True,
        setup=lambda: SimpleNamespace(settings=SimpleNamespace(mode="online")),
    )

    def init(**options: Any) -> FakeRun:
        library.given.update(options)
        return run

    library.init = init
    monkeypatch.setitem(sys.modules, "wandb", library)
    return library


def test_a_new_run_gets_the_resolved_configuration_and_the_settings(fake, tmp_path):
    tracker = WandbTracker(WandbConfig(project="p", entity="e", group="g", tags=("a", "b")))
    assert tracker.start(str(tmp_path / "run-7"), {"train": {"steps": 3}}, None) == "abc"
    wanted = {
        "project": "p",
        "entity": "e",
        "group": "g",
        "tags": ("a", "b"),
        "name": "run-7",
        "dir": str(tmp_path / "run-7"),
        "config": {"train.steps": 3},
        "mode": None,
        "id": None,
        "resume": None,
    }
    assert fake.given == wanted
    assert (tmp_path / "run-7").is_dir()


def test_a_resumed_run_continues_under_its_id(fake, tmp_path):
    WandbTracker().start(str(tmp_path), {}, "abc")
    assert (fake.given["id"], fake.given["resume"]) == ("abc", "allow")


def test_evaluations_are_drawn_over_responses_and_all_else_over_steps(fake, tmp_path):
    tracker = WandbTracker()
    tracker.start(str(tmp_path), {}, None)
    tracker.log(4, {"eval/pass@1": 0.5})
    tracker.log(5, {"reward/mean": 0.5, "rollouts/total": 8})
    tracker.log(6, {"reward/mean": 0.5})
    assert fake.run.defined == [
        ("step", {"hidden": True}),
        ("eval/pass@1", {"step_metric": "rollouts/total"}),
        ("reward/mean", {"step_metric": "step"}),
        ("rollouts/total", {"step_metric": "step"}),
    ]
    assert fake.run.logged[0] == {"step": 4, "eval/pass@1": 0.5}


@pytest.mark.parametrize("failed", [False, True])
def test_a_failed_run_is_marked_as_failed(fake, tmp_path, failed):
    tracker = WandbTracker()
    tracker.start(str(tmp_path), {}, None)
    tracker.close(failed=failed)
    assert fake.run.exit_code == int(failed)


def test_an_error_of_the_library_becomes_one_line(fake, tmp_path):
    def refuse(**options: Any) -> None:
        raise wandb.Error("permission\ndenied")

    fake.init = refuse
    with pytest.raises(UserError, match="permission denied") as caught:
        WandbTracker().start(str(tmp_path), {}, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", [None, "online"])
def test_without_a_login_the_run_stops_with_advice_and_asks_nothing(tmp_path, mode):
    with pytest.raises(UserError, match=r"tracker\.wandb\.mode=offline"):
        WandbTracker(WandbConfig(mode=mode)).start(str(tmp_path / "run"), {}, None)
    with pytest.raises(UserError, match=r"tracker\.wandb\.mode=offline"):
        WandbTracker(WandbConfig(mode=mode)).require()


def test_a_key_that_cannot_be_one_is_one_line(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(UserError, match="W&B did not start: .*tracker.wandb.mode=offline") as told:
        WandbTracker(WandbConfig(mode="online")).require()
    assert "\n" not in str(told.value)


def test_without_a_login_other_modes_require_nothing():
    for mode in ("offline", "disabled"):
        WandbTracker(WandbConfig(mode=mode)).require()


@pytest.mark.slow
def test_offline_needs_no_login_and_stays_in_the_run_folder(tmp_path):
    first = WandbTracker(WandbConfig(mode="offline"))
    run_id = first.start(str(tmp_path / "run"), {"seed": 1}, None)
    assert run_id
    first.log(1, {"reward/mean": 0.5, "rollouts/total": 8})
    first.log(1, {"eval/pass@1": 0.25, "rollouts/total": 8})
    first.close(failed=False)
    assert rows_of(tmp_path / "run", run_id) == [
        {"_step": 1, "step": 1, "rollouts/total": 8, "reward/mean": 0.5, "eval/pass@1": 0.25}
    ]


def test_a_resumed_run_sends_no_step_twice_offline(tmp_path):
    """The first start was killed after step 4 and is resumed from a checkpoint of step 2."""
    lines = [(step, {"reward/mean": step / 10}) for step in range(1, 7)]
    run_id = lived(tmp_path, *lines[:4])
    assert lived(tmp_path, *lines[2:], run_id=run_id) == run_id
    assert len(files_of(tmp_path, run_id)) == 2
    assert rows_of(tmp_path, run_id) == [
        {"_step": step, "step": step, **metrics} for step, metrics in lines
    ]


def test_a_resumed_run_sends_no_step_twice_online(fake, tmp_path):
    """W&B says at which step it goes on."""
    fake.run.starting_step = 5
    tracker = WandbTracker()
    tracker.start(str(tmp_path), {}, "abc")
    for step in range(3, 7):
        tracker.log(step, {"reward/mean": 0.5})
    assert [row["step"] for row in fake.run.logged] == [5, 6]


def test_another_folder_begins_where_its_checkpoint_was(tmp_path):
    run_id = lived(tmp_path, (3, {"reward/mean": 0.3}), (4, {"reward/mean": 0.4}))
    assert [row["_step"] for row in rows_of(tmp_path, run_id)] == [3, 4]


def test_the_best_and_the_last_evaluation_are_in_the_summary(tmp_path):
    """As numbers of their own: a sweep cannot follow a nested one."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "eval/pass@1": 0.75}\n')
    metric = "eval/pass@1"
    run_id = lived(tmp_path, (2, {metric: 0.5}), (3, {metric: 1.0}), (4, {metric: 0.25}))
    (path,) = files_of(tmp_path, run_id)
    assert summary_of(path)[metric] == 0.25
    assert summary_of(path)[f"best/{metric}"] == 1.0


def sweep_agent(monkeypatch, tmp_path: Path, parameters: dict[str, Any]) -> None:
    """The environment that an agent of W&B gives to a run."""
    file = tmp_path / "parameters.yaml"
    node = {name: {"value": value} for name, value in parameters.items()}
    file.write_text(yaml.safe_dump({"wandb_version": 1, **node}))
    for name, value in {
        "SWEEP_ID": "swp",
        "SWEEP_PARAM_PATH": str(file),
        "PROJECT": "theirs",
        "ENTITY": "team",
        "RUN_ID": "given",
    }.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # W&B leaves the parameters' file open
@pytest.mark.parametrize("name", ["ablation", "remix"])
def test_what_a_sweep_sets_and_what_it_does_not_are_both_kept(monkeypatch, tmp_path, name, capfd):
    sweep = yaml.safe_load((ROOT / "configs" / "sweep" / f"{name}.yaml").read_text())
    given = {
        key: node.get("value", node.get("values", [node.get("min")])[-1])
        for key, node in sweep["parameters"].items()
    }
    overrides = [f"{key}={value}" for key, value in given.items()]
    told = told_to_trackers(raw_of(*overrides), overrides, ())
    sweep_agent(monkeypatch, tmp_path, given)
    tracker = WandbTracker(WandbConfig(mode="offline", project="mine", entity="me"))
    assert tracker.start(str(tmp_path / "run"), told, None) == "given"
    tracker.log(1, {"reward/mean": 0.5})
    tracker.close(failed=False)
    (path,) = files_of(tmp_path / "run", "given")
    (run,) = records(path, "run")
    assert (run.sweep_id, run.project, run.entity) == ("swp", "theirs", "team")
    assert "Ignoring" not in capfd.readouterr().err
    found = config_of(path)
    assert {key: found[key] for key in given} == given
    assert found == flat_settings(told) | given
    assert found["algorithm"] == "remix" and found["loss"] == told["loss"]["name"]
    assert found["loss.aggregation"] == told["loss"]["aggregation"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_new_run_of_a_sweep_in_the_same_folder_is_sent_whole(monkeypatch, tmp_path):
    old = lived(tmp_path / "run", (1, {"reward/mean": 0.5}), (2, {"reward/mean": 0.5}))
    sweep_agent(monkeypatch, tmp_path, {"seed": 1})
    new = lived(tmp_path / "run", (2, {"reward/mean": 0.5}), run_id=old)
    assert (new, [row["_step"] for row in rows_of(tmp_path / "run", new)]) == ("given", [2])


def test_the_project_and_the_group_may_come_from_the_environment(monkeypatch, fake, tmp_path):
    WandbTracker().start(str(tmp_path), {"seed": 1}, None)
    assert fake.given["project"] == "rlkit" and fake.given["group"] == group_of({})
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_RUN_GROUP", "g")
    WandbTracker().start(str(tmp_path), {}, None)
    assert fake.given["project"] == "theirs" and fake.given["group"] is None
    WandbTracker(WandbConfig(project="mine", group=None)).start(str(tmp_path), {}, None)
    assert fake.given["project"] == "mine" and fake.given["group"] is None


ROWS = [
    {"prompt": "1+1=", "response": str(r), "reward": r, "age": 0, "length": 1, "advantage": r - 2}
    for r in range(5)
]


def test_a_table_of_responses_belongs_to_its_step(tmp_path):
    tracker = WandbTracker(WandbConfig(mode="offline", samples=2, samples_every=3))
    run_id = tracker.start(str(tmp_path), {}, None)
    assert [step for step in range(1, 8) if tracker.wants_samples(step)] == [1, 4, 7]
    tracker.log_samples(1, ROWS)
    tracker.log(1, {"reward/mean": 2.0})
    tracker.close(failed=False)
    assert run_id is not None
    (row,) = rows_of(tmp_path, run_id)
    assert row["_step"] == 1 and row["reward/mean"] == 2.0 and row["samples.nrows"] == 2
    (file,) = tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")
    table = json.loads(file.read_text())
    assert table["columns"] == list(COLUMNS)
    assert [cells[2:5] for cells in table["data"]] == [["0", 0, -2], ["4", 4, 2]]


def test_no_samples_is_no_table():
    assert not WandbTracker(WandbConfig(samples=0)).wants_samples(1)


@pytest.mark.parametrize(
    ("choice", "sent"), [("none", []), ("last", ["step-4"]), ("all", ["step-2", "step-4"])]
)
def test_checkpoints_are_artifacts_by_choice(fake, tmp_path, choice, sent):
    tracker = WandbTracker(WandbConfig(artifacts=choice))
    tracker.start(str(tmp_path), {}, None)
    for step in (2, 4):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "state").mkdir(parents=True)
        for name in ("model.safetensors", "state/updater.safetensors"):
            (folder / name).touch()
        tracker.log_checkpoint(step, folder)
    tracker.close(failed=False)
    assert [aliases for _, aliases in fake.run.artifacts] == [[name, "latest"] for name in sent]
    for artifact, _ in fake.run.artifacts:
        assert artifact.files == ["model.safetensors"]
        assert (artifact.name, artifact.type) == ("checkpoint-abc", "model")


def test_a_disabled_run_has_no_id_to_continue(tmp_path):
    tracker = WandbTracker(WandbConfig(mode="disabled"))
    assert tracker.start(str(tmp_path / "run"), {}, None) is None
    tracker.log(1, {"reward/mean": 0.5})
    tracker.close(failed=False)
