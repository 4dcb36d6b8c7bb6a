"""The task's own scorer as a reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.interfaces import Task, TaskData
from rlkit.registry import build
from rlkit.rewards.task import TaskReward, default_rewards


class Echo(Task):
    """1 where the completion is the row's answer to its prompt."""

    scores = True

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Mapping[str, Any]] = []

    def load(self, seed: int) -> TaskData:
        raise AssertionError

    def score(self, completion: str, row: Mapping[str, Any]) -> float | None:
        self.rows.append(row)
        return float(completion == row["answer"])


def test_each_completion_is_scored_with_its_row() -> None:
    task = Echo()
    chat = [{"role": "assistant", "content": "2"}]
    found = TaskReward(task)(
        ["p", "q", "r"], ["1", chat, "x"], answer=["1", "2", "3"], completion_ids=[[1]] * 3
    )
    assert found == [1.0, 1.0, 0.0]
    assert task.rows == [
        {"prompt": "p", "answer": "1"},
        {"prompt": "q", "answer": "2"},
        {"prompt": "r", "answer": "3"},
    ], "without the token ids"


def test_what_a_task_counts_and_cannot_score_is_passed_on() -> None:
    class Partly(Echo):
        def score(self, completion: str, row: Mapping[str, Any]) -> float | None:
            return None if completion == "lost" else super().score(completion, row)

        def counts(self) -> dict[str, int]:
            return {"lost": 1}

    reward = TaskReward(Partly())
    assert reward(["p", "q"], ["lost", "1"], answer=["1", "1"]) == [None, 1.0]
    assert reward.counts() == {"lost": 1} and TaskReward(Echo()).counts() == {}


def test_a_task_is_scored_by_itself_or_by_the_rewards_it_names() -> None:
    task = Echo()
    (own,) = default_rewards(task, "echo").values()
    assert isinstance(own, TaskReward) and own.task is task
    assert list(default_rewards(build("task", "jsonl"), "jsonl")) == ["math"]

    class Silent(Echo):
        scores = False

    with pytest.raises(UserError, match="task=silent has no scorer of its own; choose one"):
        default_rewards(Silent(), "silent")
