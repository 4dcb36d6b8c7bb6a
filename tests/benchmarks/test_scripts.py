"""The scripts of benchmarks/ fit the present code: they import, answer --help, and the quick ones
run."""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rlkit.registry import names
from tests.cli import ROOT, SMALL

pytestmark = pytest.mark.slow

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


def test_a_script_without_arguments_is_a_helper() -> None:
    """Another script imports it; only the script that writes the embedded models stands alone."""
    lines = {line for path in SCRIPTS.values() for line in path.read_text().splitlines()}
    imported = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert {*SCRIPTS} - {*COMMANDS} - imported == {"make_embedded_base"}


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


def test_scaling_measures_buffers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    words = ("--quick", "--series", "--buffers", "fifo", "mix", "--out", str(out))
    found = script("scaling", *words, monkeypatch=monkeypatch)
    results = json.loads(out.read_text())
    assert [*results["cases"]] == ["Buffers (quick): fifo", "Buffers (quick): mix"]
    for case in results["cases"].values():
        points, (lines,) = case["runs"]["points"], case["runs"]["fit"]
        assert [point["groups"] for point in points] == list(found["QUICK_GROUPS"])
        assert all(point["ms"] > 0 and point["bytes_per_group"] > 0 for point in points)
        assert {*lines["ms"]} == {"slope", "intercept", "largest_relative_residual"}
    (table,) = results["tables"]
    assert [row[0] for row in table["rows"]] == ["fifo", "mix"]
    assert table["title"] in capsys.readouterr().out


def test_scaling_leaves_out_the_buffer_that_reads_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = str(tmp_path / "found.json")
    with pytest.raises(SystemExit, match="stored reads a file and cannot be filled; leave it out"):
        words = ("--buffers", "fifo", "stored", "--series", "--out", out)
        script("scaling", "--quick", *words, monkeypatch=monkeypatch)


@pytest.mark.parametrize("name", names("buffer"))
def test_scaling_measures_every_other_buffer(name: str) -> None:
    found = runpy.run_path(str(SCRIPTS["scaling_buffers"]), run_name="scaling_buffers")
    assert found["reads_a_file"](name) == (name == "stored")
    if name != "stored":
        assert found["measure"](name, groups=40, batch=4, repeats=1)["ms"] > 0


def test_scaling_fits_a_line() -> None:
    """3 x + 2 exactly; then 1.5 x + 0.5, which is 2 where 1 was measured."""
    fit = runpy.run_path(str(SCRIPTS["scaling"]), run_name="scaling")["fit"]
    exact = {"slope": 3, "intercept": 2, "largest_relative_residual": 0}
    assert fit([1, 2, 4], [5, 8, 14]) == pytest.approx(exact, abs=1e-9)
    found = {"slope": 1.5, "intercept": 0.5, "largest_relative_residual": 1.0}
    assert fit([0, 1, 2], [1, 1, 4]) == pytest.approx(found)


def test_logprob_compares_every_way_and_keeps_other_sizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    words = ("logprob", "--quick", "--out", str(out))
    found = script(*words, monkeypatch=monkeypatch)
    script(*words, "--entropy", "none", monkeypatch=monkeypatch)
    results = json.loads(out.read_text())
    kept, new = results["cases"].values()
    assert kept["settings"]["entropy"] == "value" and new["settings"]["entropy"] == "none"
    for case in (kept, new):
        runs = [run for way in found["WAYS"] for run in case["runs"][way]]
        assert len(runs) == 3 and all(run["seconds"] > 0 for run in runs)
        assert all(run["gradients"] == 4 * 16 * (64 + 512) for run in runs)
    assert [table["rows"][0][0] for table in results["tables"]] == ["512, 16, 64, 64"] * 2
    assert "rlkit / full" in capsys.readouterr().out


def test_generation_writes_both_ways_and_the_share_of_the_bandwidth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    threads = str(torch.get_num_threads())
    script(
        "generation", "--quick", "--threads", threads, "--out", str(out), monkeypatch=monkeypatch
    )
    results = json.loads(out.read_text())
    (case,) = results["cases"].values()
    for way in ("hf", "generate"):
        (run,) = case["runs"][way]
        assert run["wall"] > 0 and run["cpu"] > 0
    (row,) = case["runs"]["one_row"]
    assert row["share"] > 0
    many, one = results["tables"]
    assert [cells[1] for cells in many["rows"]] == ["the clock", "processor time"]
    assert len(one["rows"]) == 1 and one["title"] in capsys.readouterr().out


def test_mutants_of_a_loss_are_found() -> None:
    """Each changes one place: PPO's clip has at least its min, its clamp and its signs."""
    found = runpy.run_path(str(SCRIPTS["mutants"]), run_name="mutants")
    every = [mutant.change for mutant in found["mutants"](ROOT / "algorithms" / "ppo.py")]
    assert any("clamp" in change for change in every) and len(every) > 10


def test_a_mutant_over_the_time_limit_is_not_counted_as_noticed() -> None:
    """Its tests neither failed nor passed."""
    found = runpy.run_path(str(SCRIPTS["mutants"]), run_name="mutants")
    ends = {"noticed": lambda: True, "survived": lambda: False, "slow": lambda: time.sleep(30)}
    found["run_all"].__globals__["noticed"] = lambda mutant, tests, names: ends[mutant]()
    results = found["run_all"](["noticed", "survived"], None, [], 2)
    results += found["run_all"](["slow"], None, [], 1, limit=0.01)
    assert results == [found["NOTICED"], found["SURVIVED"], found["TIMED_OUT"]]
    assert found["counts"](results) == "1 of 3 noticed, 1 survived, 1 over the time limit"
    assert found["counts"](results[:2]) == "1 of 2 noticed, 1 survived"


def test_overhead_is_what_no_work_accounts_for() -> None:
    """A step of 10 s: 2 + 1 + 6 of work, 0.5 of rewards and sync, and 0.5 that nothing timed."""
    found = runpy.run_path(str(SCRIPTS["overhead"]), run_name="overhead")
    seconds = {"rollout": 2, "forward": 1, "update": 6, "reward": 0.4, "sync": 0.1, "step": 10}
    shares = found["shares"]({f"time/{name}": value for name, value in seconds.items()})
    assert shares["rest"] == pytest.approx(0.05)
    assert found["overhead"](shares) == pytest.approx(0.1)


def test_overhead_splits_a_step_by_the_functions_it_calls() -> None:
    """Each entry: calls, calls, own seconds, seconds in all, and those of each caller."""
    found = runpy.run_path(str(SCRIPTS["overhead"]), run_name="overhead")
    step = ("/x/rlkit/training/trainer.py", 1, "_train_step")
    collect = ("/x/rlkit/training/collect.py", 2, "collect")

    def entry(seconds: float, **callers: float) -> tuple[Any, ...]:
        places = {"step": step, "collect": collect, "other": ("/x/y.py", 3, "_train_step")}
        return (1, 1, 0.0, seconds, {places[by]: (1, 1, 0.0, s) for by, s in callers.items()})

    profile = {
        step: entry(8.0),
        collect: entry(3.0),
        ("/x/trainer.py", 4, "_update"): entry(4.0, step=4.0),
        ("/x/fifo.py", 5, "add"): entry(3.0, step=1.0, other=2.0),
        ("/x/collect.py", 6, "_groups"): entry(2.0, collect=2.0),
        ("/x/source.py", 7, "completed"): entry(1.0, collect=1.0),
        ("~", 0, "<built-in len>"): entry(0.5, step=0.5),
    }
    assert found["split"](profile) == {
        "collect._groups": 0.25,
        "fifo.add": 0.125,
        "<built-in len>": 0.0625,
    }


@pytest.mark.slow
def test_overhead_measures_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    sizes = [size for size in SMALL if not size.startswith("train.steps")]
    script("overhead", "--quick", "--out", str(out), "--overrides", *sizes, monkeypatch=monkeypatch)
    results = json.loads(out.read_text())
    (case,) = results["cases"].values()
    (found,) = case["runs"]["measured"]
    assert found["steps"] == 7 and all(0 <= share < 1 for share in found["shares"].values())
    assert {"collect._groups", "trainer._metrics"} <= {*found["profile"]}
    step, profile = results["tables"]
    assert step["rows"][-1][2] == "at most 0.1" and len(profile["rows"]) == 6
    assert step["title"] in capsys.readouterr().out


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
def test_scaling_measures_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = ("--quick", "--series", "references", "--buffers", "--width", "16", "--out", str(out))
    script("scaling", *words, monkeypatch=monkeypatch)
    (case,) = json.loads(out.read_text())["cases"].values()
    points, (lines,) = case["runs"]["points"], case["runs"]["fit"]
    assert [point["x"] for point in points] == [0, 1, 2]
    assert all(point["time/step"] > point["time/update"] > 0 for point in points)
    assert {"time/step", "memory/peak_mb"} <= {*lines}


@pytest.mark.slow
def test_calculator_measures_both_ways_and_keeps_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    sizes = [size for size in SMALL if not size.startswith(("rollout", "eval"))]
    words = ("--seeds", "1", "--problems", "8", "--out", str(out), "--overrides", *sizes)
    for _ in range(2):  # the second time nothing is missing
        script("calculator", *words, monkeypatch=monkeypatch)
    cases = json.loads(out.read_text())["cases"]
    assert [*cases] == ["grpo, with the calculator", "grpo, without"]
    (with_it,), (without,) = (case["runs"]["runs"] for case in cases.values())
    assert with_it["steps"] == without["steps"] == 2 and with_it["cpu"] > 1
    assert len(with_it["calls"]) == 2 and without["calls"] == [0.0, 0.0]
    assert "highest base" in capsys.readouterr().out


@pytest.mark.slow
def test_seeds_come_from_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--algorithms", "grpo", "--seeds", "1", "--overrides", *SMALL]
    script("embedded_seeds", *words, monkeypatch=monkeypatch)
    assert "rollouts 64" in capsys.readouterr().out
