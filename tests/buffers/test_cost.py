"""What a step with a buffer costs does not grow with what is stored."""

from __future__ import annotations

import gc
import sys
from functools import cache
from types import FrameType
from typing import Any

import pytest

from buffers.fifo import Fifo
from buffers.mix import Mix
from rlkit.batch import Group, Score
from rlkit.interfaces import ReplayBuffer, RunContext
from rlkit.registry import build, names
from rlkit.testing.buffers import FakePrompts, FakeRollouts, scores

FEW, MANY = 500, 20_000
BATCH, AT_ONCE = 8, 250
ENDLESS = 10**6
ROOM: dict[str, dict[str, Any]] = {
    "adaptive": {"capacity": ENDLESS, "refresh_every": ENDLESS},
    "buffer_matters": {"window": ENDLESS, "c2": [0, 0], "c3": [1, 1], "hard_capacity": ENDLESS},
    "exgrpo": {},
    "fifo": {"window": 200},
    "fresh_per": {"capacity": ENDLESS},
    "highlight": {"window": ENDLESS, "capacity": ENDLESS},
    "mix": {
        "first": {"name": "fifo", "window": 200},
        "second": {"name": "prioritized", "capacity": ENDLESS},
        "share": 0.5,
    },
    "prioritized": {"capacity": ENDLESS},
    "prompt_replay": {"low": 0, "high": 1},
    "repo": {"min_cache": 2},
    "rlep": {"collect_steps": ENDLESS},
    "spear": {"size": ENDLESS, "max_age": ENDLESS},
    "value_decay": {"capacity": ENDLESS, "use_limit": None},
    "zero_variance_filler": {"capacity": ENDLESS},
}
"""Settings under which nothing leaves."""
STORELESS = {"expert", "hpt", "luffy", "on_policy", "pairs", "stored"}
"""They keep nothing of a run."""


class Counted(Group):
    """A group that counts how often it is asked for a field."""

    asked = 0

    def __getattribute__(self, name: str) -> Any:
        Counted.asked += 1
        return super().__getattribute__(name)


class Work:
    """Counts the Python instructions that run inside a `with` block."""

    def __init__(self) -> None:
        self.done = 0

    def __enter__(self) -> Work:
        self.before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.done += event == "opcode"
        return self._trace


@cache
def generated() -> tuple[FakePrompts, FakeRollouts, list[list[Group]]]:
    """What steps made, together MANY groups; every buffer is filled with the same."""
    prompts, rollouts = FakePrompts(num_generations=2), FakeRollouts()
    made: list[list[Group]] = []
    for step in range(1, MANY // AT_ONCE + 1):
        groups = [rollouts.group(prompt, 2, step) for prompt in prompts.take(AT_ONCE)]
        made.append([Counted(prompt=group.prompt, samples=group.samples) for group in groups])
    return prompts, rollouts, made


@cache
def scores_of(step: int) -> dict[int, Score]:
    return scores(generated()[2][step - 1])


def filled(name: str, groups: int) -> ReplayBuffer[Any]:
    """A buffer after steps that stored so many groups, or a mixture of two that did."""
    buffer = build("buffer", name, **ROOM[name])
    buffer.open(RunContext())
    for part in buffer.parts.values() if isinstance(buffer, Mix) else [buffer]:
        for step, made in enumerate(generated()[2][: groups // AT_ONCE], start=1):
            part.add(made, step)
            part.observe(scores_of(step))
    return buffer


def costs(name: str, groups: int) -> tuple[int, int, int]:
    """Python instructions and questions to groups in a step, and the groups it trains."""
    buffer, step = filled(name, groups), MANY // AT_ONCE + 1
    gc.collect()  # what earlier tests left ends here, not while Python is counted
    prompts, rollouts, _ = generated()
    with Work() as work:
        requests = buffer.plan(BATCH, step, prompts)
        buffer.scores_wanted(step)
    fresh = rollouts.groups(requests, step)
    Counted.asked = 0
    with work:
        trained = buffer.build(fresh, BATCH, step)
        buffer.add(fresh, step)
    asked, found = Counted.asked, scores(trained)
    Counted.asked = 0
    with work:
        buffer.observe(found)
        buffer.stats()
        len(buffer)
    return work.done, asked + Counted.asked, len(trained)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ROOM))
def test_a_step_runs_as_much_python_over_many_groups_as_over_few(name: str) -> None:
    few, many = costs(name, FEW), costs(name, MANY)
    assert many[2] == few[2], "the steps to compare must train as many groups"
    assert many[0] < 1.5 * few[0] + 2000, f"{many[0]} instructions, {few[0]} with few groups"
    assert many[1] < 1.5 * few[1] + 200, f"groups were asked {many[1]} times, {few[1]} with few"


def test_every_buffer_that_stores_is_tried() -> None:
    assert set(ROOM) | STORELESS == set(names("buffer"))


def test_a_walk_over_the_groups_would_be_seen() -> None:
    buffer = filled("fifo", FEW)
    assert isinstance(buffer, Fifo)
    Counted.asked = 0
    with Work() as work:
        assert sum(len(group.samples) for group in buffer.groups) == 2 * FEW
    assert work.done > FEW and Counted.asked >= FEW
