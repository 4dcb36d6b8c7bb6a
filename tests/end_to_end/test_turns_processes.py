"""Two processes play, score and train what one does in several turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import Result, metrics, ranks, run
from tests.end_to_end.test_kills_in_turns import LAKE, words
from tests.end_to_end.test_processes import ACCELERATE, assert_alike, launch

CHOSEN = {
    "lake": (*LAKE, "algorithm=remix", "buffer.replay_fraction=0.5"),
    "partial": (*LAKE, "rollout.oversample=1", "rollout.round_tokens=3"),
    "tool": ("tools=[{own}:double]", "reward=[{own}:talks]", "rollout.mode=ahead"),
}
SIZES = (
    "train.steps=3",
    "train.learning_rate=1e-7",
    "train.warmup_steps=0",
    "output_dir=run",
    "checkpoint.keep=3",
)


def both(name: str, folder: Path, launcher: tuple[str, ...] = ()) -> tuple[Path, Path]:
    """The folders of a run of one process, and of one of two."""
    chosen = words(*CHOSEN[name], *SIZES)
    one, two = folder / "one", folder / "two"
    for each in (one, two):
        each.mkdir()
    alone: Result = run(*chosen, cwd=one)
    assert alone.status == 0, alone.err
    found = (
        launch("rlkit.run", *chosen, cwd=two, launcher=launcher)
        if launcher
        else ranks("rlkit.run", *chosen, cwd=two)
    )
    assert found.status == 0, found.err
    return one / "run", two / "run"


def assert_played_alike(one: Path, two: Path) -> None:
    """The same episodes, tokens, advantages, metrics and weights, up to the rounding of sums.

    Steps are so small that the rounding of a gradient moves no sample; gradients are compared.
    """
    assert_alike(two, one, processes=2)
    rows = [row for row in metrics(one) if "turns/mean" in row]
    assert len(rows) == 3 and max(row["turns/mean"] for row in rows) > 1
    assert sum(row["tools/calls"] for row in rows) > 0
    assert any(row["policy/grad_norm"] > 0 for row in rows)


@pytest.mark.slow
def test_two_processes_play_what_one_plays(tmp_path: Path) -> None:
    """Replayed episodes among them."""
    assert_played_alike(*both("lake", tmp_path))


@pytest.mark.slow
def test_episodes_that_go_on_are_played_in_the_first_process(tmp_path: Path) -> None:
    one, two = both("partial", tmp_path)
    assert_played_alike(one, two)
    rows = [row for row in metrics(two) if "off_policy/continued_fraction" in row]
    assert any(row["off_policy/continued_fraction"] > 0 for row in rows)


@pytest.mark.slow
def test_tools_ahead_of_two_processes_under_accelerate_launch(tmp_path: Path) -> None:
    assert_played_alike(*both("tool", tmp_path, ACCELERATE))
