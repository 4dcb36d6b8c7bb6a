"""A run killed at any moment and resumed is the uninterrupted run, bit for bit."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Collection
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from safetensors.torch import load_file

from rlkit.evaluation.records import read_answers
from tests.cli import SMALL, Result, metrics, run, without_times

KILLER = Path(__file__).parents[1] / "killer.py"
STEPS = 6
SIZES = tuple(
    argument for argument in SMALL if not argument.startswith(("train.steps", "eval.every"))
)
COMMON = (
    *(*SIZES, f"train.steps={STEPS}", "checkpoint.every=2", "eval.every=3"),
    *("rollout.num_generations=4", f"plugins=[{KILLER}]"),
)
MIX = (
    "task=mixed",
    "task.parts={a: {kind: arithmetic, weight: 2}, b: {kind: arithmetic, reward: [exact]}}",
)
RUNS = {
    "grpo": ("algorithm=grpo",),
    "ppo": ("algorithm=ppo",),
    "remix": ("algorithm=remix", "schedule.at=3"),
    "prioritized": ("algorithm=ptr_ppo",),
    "on_disk": ("algorithm=ptr_ppo", "buffer.storage=disk"),
    "ema": ("algorithm=grpo", "anchor=ema"),
    "mix": (*MIX, "algorithm=grpo", "prompts.order=target", "prompts.drop_solved=1"),
    "mix_ahead": (*MIX, "algorithm=grpo", "prompts.order=easy_first", "rollout.mode=ahead"),
    "wandb": ("algorithm=grpo", "tracker=[wandb]"),
    "stages": ("stages=[{steps: 2, overrides: ['algorithm=sft']}, {steps: 4}]",),
}
LOST = (
    r"rlkit: the rollout process ended with status -9(: .*)?; "
    "continue from the last checkpoint with resume=auto"
)
"""What a run says whose rollout process was struck."""
MOMENTS = {
    "forward": 120,
    "reward": STEPS + 2,
    "tree": 24,
    "fsync": 45,
    "rename": 3,
    "remove": 1,
    "log": STEPS + 3,
}
"""How often each moment comes in a whole run, about."""


def start(name: str, folder: Path, kill: str = "", resume: str = "never") -> Result:
    env = {"KILL": kill, "WANDB_MODE": "offline", "WANDB_DIR": str(folder.parent)}
    arguments = (*COMMON, *RUNS[name], f"output_dir={folder}", f"resume={resume}")
    return run(*arguments, cwd=folder.parent, env=env)


@cache
def uninterrupted(name: str) -> Path:
    folder = Path(mkdtemp(prefix="rlkit-whole-")) / "out"
    assert start(name, folder).status == 0
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoint-{STEPS}" / "model.safetensors")


def responses(folder: Path) -> dict[str, bytes]:
    """Every file of completions/: what each step trained on, and its tokens."""
    return {path.name: path.read_bytes() for path in (folder / "completions").iterdir()}


def answers(folder: Path) -> dict[str, list[dict[str, object]]]:
    """What each evaluation left, by file; nothing else may lie there."""
    files = (folder / "evaluations").iterdir()
    return {path.name: read_answers(path) for path in files}


def has_struck(result: Result) -> bool:
    """Whether a kill struck the run, or the process that generates for it; it may do nothing else.

    A run whose rollout process is gone says so in one line and ends with status 2.
    """
    if result.status == 2:
        (line,) = [line for line in result.err.splitlines() if line.startswith("rlkit:")]
        assert re.fullmatch(LOST, line), result.err
        return True
    assert result.status in (-signal.SIGKILL, 0), result.err
    return result.status != 0


def rows(folder: Path, counted: Collection[str] = ()) -> list[dict[str, float]]:
    """The metrics that do not depend on the clock, nor on how often a run was killed."""
    return [
        {k: v for k, v in row.items() if k not in counted} for row in without_times(metrics(folder))
    ]


def assert_same_end(folder: Path, whole: Path, counted: Collection[str] = ()) -> None:
    """A run that was killed has left what the uninterrupted one left, bit for bit."""
    assert rows(folder, counted) == rows(whole, counted)
    assert answers(folder) == answers(whole)
    expected, found = weights(whole), weights(folder)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert responses(folder) == responses(whole) and len(responses(whole)) == 2 * STEPS
    assert not list(folder.glob(".checkpoint-*")), "nothing half-written stays"
    assert (folder / "report.html").is_file()


def assert_a_killed_run_ends_alike(folder: Path, *chosen: str) -> list[dict[str, float]]:
    """A run killed in its fifth call of the rewards and resumed against the whole one; its rows."""

    def begun(name: str, kill: str = "") -> Path:
        out, resume = folder / name, "auto" if name == "killed" else "never"
        arguments = (*COMMON, *chosen, f"output_dir={out}", f"resume={resume}")
        result = run(*arguments, cwd=folder, env={"KILL": kill})
        assert result.status == (-signal.SIGKILL if kill else 0), result.err
        return out

    whole = begun("whole")
    begun("killed", "reward:5")
    killed = begun("killed")
    found = without_times(metrics(killed))
    assert found == without_times(metrics(whole))
    mine, theirs = weights(killed), weights(whole)
    assert all(torch.equal(value, mine[key]) for key, value in theirs.items())
    return found


def check(name: str, kills: list[str], folder: Path) -> int:
    """Kill one start after the other, then let the run end; how many kills struck."""
    struck = sum(has_struck(start(name, folder, kill, resume="auto")) for kill in kills)
    result = start(name, folder, resume="auto")
    assert result.status == 0, result.err
    assert_same_end(folder, uninterrupted(name))
    return struck


@pytest.mark.parametrize(
    ("name", "kills"),
    [
        pytest.param("grpo", ["forward:30", "reward:2", "tree:5", "log:4"], marks=pytest.mark.slow),
        pytest.param("grpo", ["remove:1"], marks=pytest.mark.slow),
        pytest.param("ppo", ["tree:9", "forward:40"], marks=pytest.mark.slow),
        ("remix", ["forward:45", "fsync:8", "forward:30"]),
        pytest.param(
            "remix", ["reward:4", "rename:1", "reward:2", "log:2"], marks=pytest.mark.slow
        ),
        pytest.param("prioritized", ["reward:5", "tree:2"], marks=pytest.mark.slow),
        pytest.param("on_disk", ["rename:2", "forward:25"], marks=pytest.mark.slow),
        pytest.param("ema", ["fsync:20", "forward:20"], marks=pytest.mark.slow),
        pytest.param("mix", ["reward:4", "log:6"], marks=pytest.mark.slow),
        pytest.param("mix_ahead", ["log:5"], marks=pytest.mark.slow),
        pytest.param("mix_ahead", ["forward:60"], marks=pytest.mark.slow),
        pytest.param("wandb", ["log:5"], marks=pytest.mark.slow),
        pytest.param("stages", ["reward:3", "log:6"], marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_like_an_uninterrupted_one(
    name: str, kills: list[str], tmp_path: Path
) -> None:
    """Kills before the first checkpoint, inside a rollout, an update, a reward call, a checkpoint
    and a line of the metrics; for ReMix before, at and after the rebirth; always two or more in a
    row."""
    assert check(name, kills, tmp_path / "out") == len(kills)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("seed", range(5))
def test_kills_at_random_moments(name: str, seed: int, tmp_path: Path) -> None:
    """Four kills in a row; those that come too late for a run that is nearly done do not strike."""
    draw = random.Random(f"{name}/{seed}")
    kinds = [*draw.sample(sorted(MOMENTS), 3), "time"]
    kills = [
        f"time:{draw.uniform(0.05, 2.0):.3f}"
        if kind == "time"
        else f"{kind}:{draw.randint(1, max(1, MOMENTS[kind] // 2))}"
        for kind in kinds
    ]
    struck = check(name, kills, tmp_path / "out")
    print(f"{name} {seed} {kills}: {struck} struck")
