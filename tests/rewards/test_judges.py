"""By which reward a response is right."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.interfaces import Reward
from rlkit.rewards.function import reward_class
from rlkit.rewards.judges import Judges, find_judges
from rlkit.rewards.on_tasks import OnTasks


def reward(marks: bool | None) -> Reward:
    def value(completions: list[str], **columns: Any) -> list[float]:
        return [1.0] * len(completions)

    value.marks_correctness = marks  # type: ignore[attr-defined]
    return reward_class(value)()


def on(task: str, marks: bool | None) -> Reward:
    return OnTasks(reward(marks), "r", {task: {"answer"}})


def test_one_judge_is_the_first_that_marks_correctness_or_says_nothing() -> None:
    assert find_judges({"a": reward(False), "b": reward(None), "c": reward(True)}, (), None) == (
        Judges("c")
    )
    assert find_judges({"a": reward(False), "b": reward(None)}, (), None) == Judges("b")
    assert find_judges({"a": reward(True), "b": reward(None)}, (), "b") == Judges("b")
    with pytest.raises(
        UserError, match=r"no reward of this run marks correctness \(a\).*eval\.reward=a"
    ):
        find_judges({"a": reward(False)}, (), None)
    with pytest.raises(UserError, match=r"eval\.reward=maths.*Did you mean 'math'\?"):
        find_judges({"math": reward(True)}, (), "maths")


MIX = {
    "m/long": on("m", False),
    "m/math": on("m", True),
    "s/sum": on("s", None),
    "all": reward(False),
}


def test_each_task_of_a_mix_has_a_judge_of_its_own() -> None:
    judges = find_judges(MIX, ("m", "s"), None)
    assert judges.by_task == {"m": "m/math", "s": "s/sum"} and judges.default == "m/math"
    assert judges.of({"task": "s"}) == "s/sum" and judges.of({"task": "m"}) == "m/math"
    assert judges.words == "'m/math' for m and 's/sum' for s"
    assert Judges("x").of({"task": "s"}) == "x" and Judges("x").words == "'x'"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("m/long", {"m": "m/long", "s": "s/sum"}),
        ("long", {"m": "m/long", "s": "s/sum"}),
        ("all", {"m": "all", "s": "all"}),
    ],
)
def test_a_chosen_judge_counts_where_it_applies(wanted: str, found: dict[str, str]) -> None:
    assert find_judges(MIX, ("m", "s"), wanted).by_task == found


def test_a_task_without_a_judge_is_named() -> None:
    only = {"m/long": on("m", False), "s/sum": on("s", True)}
    with pytest.raises(UserError, match=r"no reward of m marks correctness \(m/long\)"):
        find_judges(only, ("m", "s"), None)
