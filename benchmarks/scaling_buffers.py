"""What a buffer costs in a step, and in memory, by the number of groups it holds."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.batch import Group
from rlkit.interfaces import ReplayBuffer, RunContext
from rlkit.registry import build
from rlkit.testing.buffers import FakePrompts, FakeRollouts, scores

GROUP = 2
"""Responses to a prompt; the cost is meant by group, and short ones leave room for many."""
AT_ONCE = 500
"""Groups that a step stores while a buffer is filled."""
ENDLESS = 10**9
ROOM: dict[str, dict[str, Any]] = {
    "adaptive": {"capacity": ENDLESS, "refresh_every": ENDLESS},
    "buffer_matters": {"window": ENDLESS, "c2": [0, 0], "c3": [1, 1], "hard_capacity": ENDLESS},
    "fifo": {"window": 1000},
    "mix": {
        "first": {"name": "fifo", "window": 1000},
        "second": {"name": "prioritized", "capacity": ENDLESS},
        "share": 0.5,
    },
    "prioritized": {"capacity": ENDLESS},
    "prompt_replay": {"low": 0, "high": 1},
    "repo": {"min_cache": GROUP},
    "rlep": {"collect_steps": ENDLESS},
    "spear": {"size": ENDLESS, "max_age": ENDLESS},
    "value_decay": {"capacity": ENDLESS, "use_limit": None},
    "zero_variance_filler": {"capacity": ENDLESS},
}
"""Settings under which nothing leaves; other buffers have their defaults."""


def reads_a_file(name: str) -> bool:
    """Whether a buffer's groups come from a file, so that it cannot be filled."""
    return bool(build("buffer", name, **ROOM.get(name, {})).stored_data)


@dataclass
class Stock:
    """Groups that steps made, the same for every buffer."""

    prompts: FakePrompts
    rollouts: FakeRollouts
    steps: list[list[Group]]


def stock_of(groups: int) -> Stock:
    """So many groups of one step after the other."""
    stock = Stock(FakePrompts(num_generations=GROUP), FakeRollouts(), [])
    while groups > 0:
        new = stock.prompts.take(min(groups, AT_ONCE))
        step = len(stock.steps) + 1
        stock.steps.append([stock.rollouts.group(prompt, GROUP, step) for prompt in new])
        groups -= len(new)
    return stock


def fill(buffer: ReplayBuffer[Any], stock: Stock) -> None:
    """Store the groups; a mixture of buffers stores them in each."""
    parts: Sequence[ReplayBuffer[Any]] = list(getattr(buffer, "parts", {"": buffer}).values())
    for step, groups in enumerate(stock.steps, start=1):
        found = scores(groups)
        for part in parts:
            part.add(groups, step)
            part.observe(found)


class Stopwatch:
    """Milliseconds of the processor in the calls of a step."""

    def __init__(self) -> None:
        self.spent = 0.0

    def __call__(self, call: Callable[[], Any]) -> Any:
        """Make a call and count its time."""
        started = time.process_time()
        found = call()
        self.spent += (time.process_time() - started) * 1e3
        return found


def step_ms(buffer: ReplayBuffer[Any], stock: Stock, batch: int, step: int) -> float:
    """Plan, build, add, observe and the figures of one step; generation is not counted."""
    clock = Stopwatch()
    requests = clock(lambda: buffer.plan(batch, step, stock.prompts))
    fresh = stock.rollouts.groups(requests, step)
    clock(lambda: buffer.scores_wanted(step))
    trained = clock(lambda: buffer.build(fresh, batch, step))
    clock(lambda: buffer.add(fresh, step))
    found = scores(trained)
    clock(lambda: buffer.observe(found))
    clock(lambda: (buffer.stats(), len(buffer)))
    return clock.spent


def measure(name: str, groups: int, batch: int, repeats: int) -> dict[str, float]:
    """Median milliseconds of a step over so many groups, and bytes per group.

    The bytes are those of the buffer's own tables and of what it keeps with a group; the groups
    themselves, which it holds and does not copy, are not counted.
    """
    stock = stock_of(groups)
    tracemalloc.start()
    buffer = build("buffer", name, **ROOM.get(name, {}))
    buffer.open(RunContext())
    fill(buffer, stock)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    first = len(stock.steps) + 1
    times = [step_ms(buffer, stock, batch, first + i) for i in range(repeats)]
    return {"groups": groups, "ms": statistics.median(times), "bytes_per_group": held / groups}
