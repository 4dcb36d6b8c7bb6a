"""A run with trackers computes what it computes without, and W&B has it whole after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import SMALL, metrics, run, without_times
from tests.wandb_file import config_of, history, records

TRACKED = (
    "tracker=[wandb,tensorboard]",
    "tracker.wandb.mode=offline",
    "tracker.wandb.samples_every=1",
    "tracker.wandb.artifacts=last",
    "tracker.tensorboard.samples_every=1",
)
STAGES = "stages=[{steps: 1, overrides: [algorithm=grpo]}, {steps: 2, overrides: [seed=7]}]"


@pytest.mark.slow
def test_trackers_change_no_number_and_a_resumed_run_is_whole(tmp_path: Path) -> None:
    more = "train.steps=4", "eval.every=1", "resume_force=[train.steps]", "resume=auto"
    for name, trackers in (("plain", ()), ("tracked", TRACKED)):
        for steps in ((), more):
            folder = f"output_dir={name}"
            result = run(*SMALL, *trackers, "eval.every=1", folder, *steps, cwd=tmp_path)
            assert result.status == 0, result.err
    plain, tracked = (without_times(metrics(tmp_path / name)) for name in ("plain", "tracked"))
    assert plain == tracked and plain[-1]["step"] == 4
    first, second = sorted((tmp_path / "tracked").glob("wandb/offline-run-*/*.wandb"))
    assert first.stem == second.stem
    rows = [row for path in (first, second) for row in history(path)]
    assert [row["_step"] for row in rows] == [0, 1, 2, 3, 4]
    assert all("eval/pass@1" in row and "rollouts/total" in row for row in rows)
    assert [row.get("samples.nrows") for row in rows] == [None, 4, 4, 4, 4]
    (artifact,) = (a for a in records(second, "artifact") if a.type == "model")
    names = {file.path for file in artifact.manifest.contents}
    assert "model.safetensors" in names and not any(name.startswith("state") for name in names)


@pytest.mark.slow
def test_stages_have_settings_of_their_own(tmp_path: Path) -> None:
    result = run(*SMALL, *TRACKED[:2], STAGES, "output_dir=out", cwd=tmp_path)
    assert result.status == 0, result.err
    (path,) = (tmp_path / "out").glob("wandb/offline-run-*/*.wandb")
    found = config_of(path)
    names = ("algorithm", "loss", "train.steps", "stage.1.algorithm", "stage.1.loss")
    assert [found[name] for name in names] == ["remix", "remix", 3, "grpo", "grpo"]
    assert found["stage.2.algorithm"] == "remix" and found["stage.2.train.steps"] == 2
    assert "stage.2.loss.epsilon" not in found, "it is the whole run's"
    assert [row["_step"] for row in history(path)] == [0, 1, 2, 3]
