"""Runs in several turns, killed at any moment and resumed, end as the uninterrupted ones, bit for
bit. Each kind of run is killed twice, or RLKIT_KILLS times: with 10 these are 100 kills in all.

    RLKIT_KILLS=10 python -m pytest -m slow tests/end_to_end/test_kills_in_turns.py
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests import callers
from tests.cli import Result, metrics, run
from tests.end_to_end.test_kills import KILLER, STEPS, assert_same_end, has_struck

KILLS = int(os.environ.get("RLKIT_KILLS", "2"))
COMMON = (
    *("algorithm=grpo", "train.prompts_per_step=2", "rollout.num_generations=3"),
    *(
        f"train.steps={STEPS}",
        "checkpoint.every=1",
        "checkpoint.keep=2",
        "train.learning_rate=0.01",
    ),
    *("eval.every=3", "eval.problems=2", "eval.samples=1"),
    *(
        "rollout.max_completion_length=200",
        "turns.max=4",
        "turns.call_format=compact",
        "turns.max_observation_tokens=30",
    ),
    *("task=environment", "task.prompt=go ", "task.chat_template=always", f"plugins=[{KILLER}]"),
)
TALKS = "reward=[{own}:talks]"
LAKE = ("environment=frozen_lake", "environment.size=3", "reward=[{own}:talks,environment]")
RUNS: dict[str, tuple[str, ...]] = {
    "lake": LAKE,
    "ahead": (*LAKE, "rollout.mode=ahead"),
    "async": (*LAKE, "rollout.mode=async", "rollout.max_staleness=2", "rollout.deterministic=true"),
    "tool": ("tools=[{own}:double]", TALKS),
    "once": ("tools=[{own}:book]", TALKS),
    "class": ("environment={own}:Counter", "reward=[{own}:talks,environment]"),
    "python": ("environment=python", TALKS),
    "replay": (*LAKE, "algorithm=remix", "buffer.replay_fraction=0.5", "schedule.at=4"),
    "two": (
        *("environment=[frozen_lake,{own}:Counter]", "reward=[{own}:talks,environment]"),
        *("task=jsonl", "task.path={rows}", "task.chat_template=always"),
    ),
    "partial": (*LAKE, "rollout.oversample=1", "rollout.round_tokens=3"),
}
MOMENTS = {"call": 6, "forward": 25, "reward": 1, "tree": 14, "fsync": 14, "rename": 1, "log": 1}
"""How often each comes in a step, about."""
COUNTED = {"once": ("tools/restarted",)}
"""Metrics that say how often a run was killed."""


def words(*chosen: str) -> list[str]:
    """The arguments of a run: what is chosen, and what the runs have in common for the rest."""
    made = callers.folder()
    places = {"own": made / "own.py", "rows": made / "rows.jsonl"}
    given = {word.partition("=")[0] for word in chosen}
    keys = {word: word.partition("=")[0] for word in COMMON}
    common = [w for w, key in keys.items() if not {key, key.partition(".")[0]} & given]
    own = [
        word.format_map(places) if "{own}" in word or "{rows}" in word else word for word in chosen
    ]
    return [*common, *own, f"model.name={made}/model"]


def start(name: str, folder: Path, kill: str = "", *more: str) -> Result:
    chosen = words(*RUNS[name], *more, f"output_dir={folder}", "resume=auto")
    return run(*chosen, cwd=folder.parent, env={"KILL": kill})


@cache
def uninterrupted(name: str) -> Path:
    folder = Path(mkdtemp(prefix="rlkit-whole-")) / "out"
    result = start(name, folder)
    assert result.status == 0, result.err
    steps = [row for row in metrics(folder) if "turns/mean" in row]
    assert len(steps) == STEPS and sum(row["tools/calls"] for row in steps) > STEPS
    assert max(row["turns/mean"] for row in steps) > 1
    assert any(row["policy/grad_norm"] > 0 for row in steps)
    return folder


def kills_of(name: str) -> Iterator[str]:
    """Moments within about a step from where a run goes on; the first is inside a tool's call."""
    draw = random.Random(name)
    yield "call:4"
    while True:
        kind = draw.choice(sorted(MOMENTS))
        yield f"{kind}:{draw.randint(1, MOMENTS[kind] + 1)}"


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_ends_like_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    """A run that reaches its end before it was killed as often is compared, and another begins."""
    whole, struck, runs = uninterrupted(name), 0, 0
    folder = tmp_path / f"out-{runs}"
    for kill in kills_of(name):
        if struck == KILLS:
            break
        if has_struck(start(name, folder, kill)):
            struck += 1
            continue
        assert_same_end(folder, whole, COUNTED.get(name, ()))
        runs += 1
        folder = tmp_path / f"out-{runs}"
        assert runs < 3 * KILLS, "hardly any kill strikes"
    result = start(name, folder)
    assert result.status == 0, result.err
    assert_same_end(folder, whole, COUNTED.get(name, ()))
    print(f"{name}: {struck} kills over {runs + 1} runs")


@pytest.mark.slow
def test_calls_that_must_not_be_made_twice_are_counted(tmp_path: Path) -> None:
    """The struck episode, at least, begins again: the evaluation before has 16 calls at most."""
    folder, alone = tmp_path / "out", "eval.every=null"
    assert has_struck(start("once", folder, "call:20", alone))
    noted = {line.split()[1] for line in (folder / "called-once").read_text().splitlines()}
    result = start("once", folder, "", alone)
    assert result.status == 0, result.err
    shares = [row["tools/restarted"] for row in metrics(folder) if "tools/restarted" in row]
    assert 1 <= round(sum(6 * share for share in shares)) <= len(noted)
