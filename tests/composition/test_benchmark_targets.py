"""Who marks what: the rewards of targets; tests/end_to_end/test_eval_on.py answers them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rlkit.composition.benchmark_targets import check_readable, rewards_of, task_of
from rlkit.errors import UserError
from rlkit.evaluation.accepted import Accepted
from rlkit.evaluation.benchmarks import BENCHMARKS
from rlkit.evaluation.problems import ProblemSet, Target
from rlkit.registry import build
from rlkit.rewards.task import TaskReward

FILE = Target(name="file", path="file.jsonl")
KNOWN = Target(name="math500", benchmark=BENCHMARKS["math500"])
TASK = Target(name="arithmetic")


def problems(prompt: str) -> ProblemSet:
    return ProblemSet(name="a", title="a", rows=[{"prompt": prompt, "answer": "2"}], source="")


def composition(**chosen: Any) -> Any:
    task = build("task", "arithmetic")
    raw = {"task": {"name": "arithmetic"}, "reward": dict.fromkeys(chosen)}
    return SimpleNamespace(raw=raw, task=task, eval_rewards=chosen)


def test_a_benchmark_is_marked_by_its_own_answers_whatever_is_chosen() -> None:
    c = composition(mine=object())
    assert type(rewards_of(KNOWN, problems("1"), c)["math"]) is Accepted
    assert rewards_of(FILE, problems("1"), c) is c.eval_rewards
    assert type(rewards_of(FILE, problems("1"), composition())["math"]) is Accepted
    assert type(rewards_of(TASK, problems("1"), c)["arithmetic"]) is TaskReward
    assert task_of(TASK, c) is c.task


def test_the_embedded_model_reads_sums_alone() -> None:
    check_readable(problems("1+1="))
    with pytest.raises(UserError, match="cannot read a"):
        check_readable(problems("1 + x"))
