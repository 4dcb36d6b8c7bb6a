"""W&B: what is sent, how a run is continued, and what happens without a login."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from rlkit.errors import UserError
from rlkit.trackers.wandb import WandbConfig, WandbTracker
from tests.wandb_file import history


@pytest.fixture(autouse=True)
def nobody_logged_in(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield
    wandb.teardown()


def rows_of(folder: Path, run_id: str) -> list[dict[str, Any]]:
    """What was logged offline, without W&B's own times."""
    (path,) = folder.glob(f"wandb/offline-run-*/run-{run_id}.wandb")
    own = ("_timestamp", "_runtime")
    return [{k: v for k, v in row.items() if k not in own} for row in history(path)]


class FakeRun:
    id = "abc"

    def __init__(self) -> None:
        self.defined: list[tuple[str, dict[str, Any]]] = []
        self.logged: list[dict[str, float]] = []
        self.exit_code: int | None = None

    def define_metric(self, name: str, **options: Any) -> None:
        self.defined.append((name, options))

    def log(self, data: dict[str, float], step: int) -> None:
        assert step == data["step"]
        self.logged.append(data)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def fake(monkeypatch) -> SimpleNamespace:
    """A stand-in for the library, with a login, that remembers what `init` was given."""
    run = FakeRun()
    library = SimpleNamespace(
        run=run,
        given={},
        Error=wandb.Error,
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
        "config": {"train": {"steps": 3}},
        "mode": None,
        "id": None,
        "resume": None,
    }
    assert fake.given == wanted
    assert (tmp_path / "run-7").is_dir()


def test_a_resumed_run_continues_under_its_id(fake, tmp_path):
    WandbTracker().start(str(tmp_path), {}, "abc")
    assert (fake.given["id"], fake.given["resume"]) == ("abc", "allow")


def test_every_metric_is_drawn_over_the_training_step(fake, tmp_path):
    tracker = WandbTracker()
    tracker.start(str(tmp_path), {}, None)
    tracker.log(4, {"eval/pass@1": 0.5})
    assert ("*", {"step_metric": "step"}) in fake.run.defined
    assert fake.run.logged == [{"step": 4, "eval/pass@1": 0.5}]


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


def test_offline_needs_no_login_and_stays_in_the_run_folder(tmp_path):
    first = WandbTracker(WandbConfig(mode="offline"))
    run_id = first.start(str(tmp_path / "run"), {"seed": 1}, None)
    assert run_id
    first.log(1, {"reward/mean": 0.5})
    first.log(1, {"eval/pass@1": 0.25})
    first.close(failed=False)
    assert rows_of(tmp_path / "run", run_id) == [
        {"_step": 1, "step": 1, "reward/mean": 0.5, "eval/pass@1": 0.25}
    ]


def test_what_a_resumed_run_adds_offline_follows_what_there_is(tmp_path):
    """Both files are of one run: a step that they share would be overwritten when they are sent."""
    tracker = WandbTracker(WandbConfig(mode="offline"))
    tracker.start(str(tmp_path / "second"), {}, "abcd")
    for step in (3, 4):
        tracker.log(step, {"reward/mean": step / 10})
    tracker.close(failed=False)
    assert rows_of(tmp_path / "second", "abcd") == [
        {"_step": 3, "step": 3, "reward/mean": 0.3},
        {"_step": 4, "step": 4, "reward/mean": 0.4},
    ]


def test_a_disabled_run_has_no_id_to_continue(tmp_path):
    tracker = WandbTracker(WandbConfig(mode="disabled"))
    assert tracker.start(str(tmp_path / "run"), {}, None) is None
    tracker.log(1, {"reward/mean": 0.5})
    tracker.close(failed=False)
