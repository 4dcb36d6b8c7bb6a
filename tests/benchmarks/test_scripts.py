"""The scripts of benchmarks/ fit the present code: they import, answer --help, and the quick ones
run."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli import ROOT, SMALL

SCRIPTS = {path.stem: path for path in sorted((ROOT / "benchmarks").glob("*.py"))}
COMMANDS = sorted(name for name, path in SCRIPTS.items() if "import argparse" in path.read_text())


@pytest.fixture(autouse=True)
def _beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script finds `bench` in its own folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def script(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`python benchmarks/<name>.py <arguments>`."""
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", *arguments])
    return runpy.run_path(str(SCRIPTS[name]), run_name="__main__")


def test_most_scripts_have_arguments() -> None:
    """The others are the helpers and the script that writes the embedded model."""
    helpers = {"bench", "records", "watch"}
    assert {*SCRIPTS} - {*COMMANDS} == {*helpers, "make_embedded_base"}


@pytest.mark.parametrize("name", sorted({*SCRIPTS} - {*COMMANDS}))
def test_a_script_without_arguments_imports(name: str) -> None:
    found = runpy.run_path(str(SCRIPTS[name]), run_name=name)
    assert found["__doc__"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_imports_and_answers_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        script(name, "--help", monkeypatch=monkeypatch)
    assert stop.value.code == 0
    assert f"usage: {name}.py" in capsys.readouterr().out


def test_partial_rollouts_measures_every_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"repeats": 1, "steps": 1, "warm-up": 0, "prompts": 2, "n": 2, "length": 8}
    sizes |= {"mean": 4, "width": 8, "layers": 1}
    words = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    found = script("partial_rollouts", *words, monkeypatch=monkeypatch)
    head, *rows = capsys.readouterr().out.splitlines()
    assert "responses/s" in head and len(rows) == len(found["WAYS"])
    assert all(row.startswith(way) for row, way in zip(rows, found["WAYS"], strict=True))


def test_buffer_storage_measures_each_buffer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--responses", "64", "--tokens", "4", "--batch", "4", "--steps", "2")
    script("buffer_storage", "--buffer", "fifo", "prioritized", *sizes, monkeypatch=monkeypatch)
    out = capsys.readouterr().out
    assert "fifo: 64 responses" in out and "prioritized: 64 responses" in out
    assert out.count("of the disk") == 8, "nothing was written"


def test_layer_skip_writes_its_measurements(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    shares = ("--shares", "0.5", "--keep", "0", "--out", str(out))
    sizes = ("--prompts", "1", "--responses", "1", "--tokens", "2", "--repeats", "1")
    script("layer_skip", "speed", *shares, *sizes, monkeypatch=monkeypatch)
    (found,) = json.loads(out.read_text()).values()
    assert {*found["rate_busy_kl"]} == {"0", "0.5"} and len(found["without_layer"]) == 2


def test_mutants_of_a_loss_are_found() -> None:
    """Each changes one place: PPO's clip has at least its min, its clamp and its signs."""
    found = runpy.run_path(str(SCRIPTS["mutants"]), run_name="mutants")
    every = [mutant.change for mutant in found["mutants"](ROOT / "algorithms" / "ppo.py")]
    assert any("clamp" in change for change in every) and len(every) > 10


@pytest.mark.slow
def test_curves_of_lag_come_from_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = ["--lags", "1", "--seeds", "1", "--steps", "2", "--out", str(out), "--overrides"]
    sizes = [size for size in SMALL if not size.startswith(("train.steps", "eval.every"))]
    script("lag_curves", *words, *sizes, monkeypatch=monkeypatch)
    found = json.loads(out.read_text())
    assert {*found} == {"oapl_lag L=1", "grpo_lag L=1"}
    assert all([step for step, _ in curve] == [0, 2] for (curve,) in found.values())


@pytest.mark.slow
def test_seeds_come_from_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--algorithms", "grpo", "--seeds", "1", "--overrides", *SMALL]
    script("embedded_seeds", *words, monkeypatch=monkeypatch)
    assert "rollouts 64" in capsys.readouterr().out
