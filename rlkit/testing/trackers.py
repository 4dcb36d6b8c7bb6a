"""What a tracker must do."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from rlkit.config.run import RunConfig
from rlkit.interfaces import Tracker
from rlkit.runs.generators import rng_state
from rlkit.testing.base import require

EVALUATION = {"eval/pass@1": 0.25, "rollouts/total": 0.0}
STEP = {"policy/loss": -0.5, "reward/mean": 0.5, "rollouts/total": 8.0}
ROWS = [
    {
        "prompt_id": "train-0",
        "prompt": prompt,
        "response": "**2** <b>\u202e",
        "reward": reward,
        "rewards": {"one": reward},
        "age": 0,
        "length": 3,
        "finish_reason": "stop",
        **learned,
    }
    for prompt, reward, learned in (
        ("1+1=", 1.0, {"advantage": 0.5, "ratio": 1.0}),
        ([{"role": "user", "content": "1+1="}], 0.0, {}),
    )
]
"""Responses of a step: to a text and to messages; the second one's update was skipped."""


def settings(folder: str) -> dict[str, Any]:
    """A run's configuration."""
    return RunConfig(output_dir=folder).model_dump(mode="json") | {"task": {"name": "tried"}}


def life(tracker: Tracker[Any], folder: str, run_id: str | None, steps: range) -> str | None:
    """A run from its start to its end."""
    given = tracker.start(folder, settings(folder), run_id)
    tracker.begin(max(0, steps[0] - 1))
    for step in steps:
        if step and tracker.wants_samples(step):
            tracker.log_samples(step, ROWS)
        tracker.log(step, STEP if step else EVALUATION)
        tracker.message(f"Step {step} is done.")
        tracker.progress("evaluating", step, steps[-1])
    checkpoint = Path(folder) / f"checkpoint-{steps[-1]}"
    (checkpoint / "state").mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    tracker.log_checkpoint(steps[-1], checkpoint)
    tracker.close(failed=False)
    return given


def a_run_is_recorded_and_continued(tracker: Tracker[Any]) -> None:
    """Started, told of steps and evaluations, closed; then continued by another one."""
    with tempfile.TemporaryDirectory() as folder:
        run_id: Any = life(tracker, folder, None, range(3))
        require(run_id is None or isinstance(run_id, str), "start returns neither an id nor None")
        life(type(tracker)(tracker.config), folder, run_id, range(3, 5))


def a_run_may_fail_before_its_first_line(tracker: Tracker[Any]) -> None:
    """Closed right after the start, and without one."""
    with tempfile.TemporaryDirectory() as folder:
        started = type(tracker)(tracker.config)
        started.start(folder, settings(folder), None)
        started.close(failed=True)
        type(tracker)(tracker.config).close(failed=True)


def draws_are_left_alone(tracker: Tracker[Any]) -> None:
    """The generators of random, numpy and torch, from which the user's code may draw, do not move.

    A resumed run would otherwise draw other numbers than one that was never interrupted.
    """
    with tempfile.TemporaryDirectory() as folder:
        before = rng_state()
        life(type(tracker)(tracker.config), folder, None, range(2))
        after = rng_state()
    for name, state in before.items():
        require(_same(state, after[name]), f"it draws from the generator of {name}")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list):
        return all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


TRACKER = (
    a_run_is_recorded_and_continued,
    a_run_may_fail_before_its_first_line,
    draws_are_left_alone,
)
