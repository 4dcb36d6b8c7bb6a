"""A reward of some tasks of a mix."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.interfaces import Reward, RunContext
from rlkit.rewards.function import FunctionConfig, reward_class
from rlkit.rewards.on_tasks import OnTasks
from rlkit.rewards.scoring import RewardSet

CALLS: list[dict[str, Any]] = []


def value(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    CALLS.append({"prompts": prompts, "completions": completions, **columns})
    return [float(len(c)) for c in completions]


def only_one(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [1.0]


def on(function: Any, **columns: set[str]) -> OnTasks:
    return OnTasks(reward_class(function)(), "m/value", columns or {"m": {"answer", "task"}})


ROWS: dict[str, Any] = {
    "prompts": ["p", "q", "r"],
    "completions": ["a", "bb", "ccc"],
    "completion_ids": [[1], [2], [3]],
    "columns": {"task": ["m", "s", "m"], "answer": ["1", None, "3"], "entry": [None, {}, None]},
}


def test_it_sees_its_rows_and_their_columns_alone() -> None:
    """As in a run of its tasks alone: the column `entry` is another task's."""
    CALLS.clear()
    found = RewardSet({"m/value": on(value)}).score(**ROWS)
    assert found.components == {"m/value": [1.0, None, 3.0]} and found.total == [1.0, None, 3.0]
    assert CALLS == [
        {
            "prompts": ["p", "r"],
            "completions": ["a", "ccc"],
            "completion_ids": [[1], [3]],
            "task": ["m", "m"],
            "answer": ["1", "3"],
        }
    ]


def test_rewards_of_several_tasks_add_up_where_they_apply() -> None:
    both = {
        "m/value": on(value),
        "s/value": on(value, s={"entry"}),
        "both": on(value, m={"answer"}, s={"entry"}),
    }
    found = RewardSet(both).score(**ROWS)
    assert found.components["both"] == [1.0, 2.0, 3.0]
    assert found.components["s/value"] == [None, 2.0, None]
    assert found.total == [2.0, 4.0, 6.0]


def test_it_is_not_called_without_rows_of_its_own() -> None:
    CALLS.clear()
    assert on(value, other=set())(["p"], ["a"], task=["m"]) == [None] and CALLS == []


def test_a_row_of_no_task_is_told() -> None:
    for columns in ({}, {"task": ["m", None]}):
        with pytest.raises(UserError, match="a row without the column 'task'.*task=m"):
            on(value)(["p", "q"], ["a", "b"], **columns)


def test_what_the_reward_does_wrong_is_told_by_its_name() -> None:
    with pytest.raises(UserError, match="'m/value' returned 1 values for 2 completions"):
        RewardSet({"m/value": on(only_one)}).score(**ROWS)


def test_it_is_the_reward_in_all_else() -> None:
    class Own(Reward):
        closed = False

        def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
            return [0.0] * len(prompts)

        def notes(self) -> tuple[str, ...]:
            return ("a note",)

        def counts(self) -> dict[str, int]:
            return {"errors": 2}

        def close(self) -> None:
            self.closed = True

    own = Own()
    wrapped = OnTasks(own, "m/own", {"m": {"answer"}})
    context = RunContext(seed=7)
    wrapped.open(context)
    wrapped.close()
    assert own.context is context and own.closed
    assert wrapped.notes() == ("a note",) and wrapped.counts() == {"errors": 2}
    assert wrapped.itself is own and own.itself is own
    assert RewardSet({"m/own": wrapped}).parts == {"m/own": own}
    assert wrapped.applies_to_task("m") and not wrapped.applies_to_task("s")
    other = Own()
    assert wrapped.over(other).itself is other and wrapped.over(other).applies_to_task("m")


async def at_three(completion_ids: Any, **columns: Any) -> list[float]:
    return [1 / (ids[0] - 3) for ids in completion_ids]


def endless(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [float("inf") if len(c) == 3 else 0.0 for c in completions]


def test_a_response_is_called_by_its_place_in_the_batch() -> None:
    """The second of its task's is the third of all."""
    one_each = {"m/value": on(at_three)}
    one_each["m/value"].reward.config = FunctionConfig(concurrency=1)
    with pytest.raises(UserError, match="ZeroDivisionError for completion 2"):
        RewardSet(one_each).score(**ROWS)
    with pytest.raises(UserError, match="returned inf for completion 2"):
        RewardSet({"m/value": on(endless)}).score(**ROWS)
