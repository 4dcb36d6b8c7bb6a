"""Several tasks in one run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlkit.composition.turns import chosen_rewards
from rlkit.errors import UserError
from rlkit.interfaces import Reward, Task
from rlkit.registry import build, register, scoped
from rlkit.rewards.task import TaskReward
from rlkit.tasks.identity import row_ids
from rlkit.tasks.mixed import Mixed
from rlkit.testing.tasks import TASK
from tests.tasks.files import write

MATH = [{"prompt": f"What is {i}+1?", "answer": i + 1, "level": i % 3} for i in range(30)]
WORDS = [{"question": f"Spell {i}.", "gold": f"w{i}"} for i in range(12)]


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, dict[str, Any]]:
    write(tmp_path / "math.jsonl", MATH)
    write(tmp_path / "words.jsonl", WORDS)
    return {
        "math": {"kind": "jsonl", "path": str(tmp_path / "math.jsonl"), "weight": 2},
        "words": {
            "kind": "jsonl",
            "path": str(tmp_path / "words.jsonl"),
            "prompt_column": "question",
            "answer_column": "gold",
            "reward": ["exact", {"kind": "overlong", "weight": 0.5}],
        },
        "sums": {"kind": "arithmetic", "operands": 2},
    }


def mixed(parts: Any, **settings: Any) -> Mixed:
    task: Mixed = build("task", "mixed", parts=parts, **settings)
    return task


def test_a_misspelled_key_of_a_part_is_told_with_those_of_a_mix_too() -> None:
    said = (
        r"^unknown key task.parts.a.weigth. Did you mean 'weight'\? Known: kind, weight, reward, "
    )
    with pytest.raises(UserError, match=said):
        mixed({"a": {"kind": "arithmetic", "weigth": 3}})


def test_rows_are_those_of_each_task_with_its_name(parts: dict[str, Any]) -> None:
    task = mixed(parts)
    data = task.load(0)
    assert task.mix == {"math": 2.0, "words": 1.0, "sums": 1.0}
    for name in parts:
        alone = {k: v for k, v in parts[name].items() if k not in ("kind", "weight", "reward")}
        own = build("task", parts[name]["kind"], **alone).load(0)
        for found, expected in ((data.train, own.train), (data.eval, own.eval)):
            rows = [row for row in found if row["task"] == name]
            assert rows == [{**row, "task": name} for row in expected]
    assert len(data.train[:5]) == 5 and data.train[:5][1] == data.train[1]


def test_held_out_problems_alternate_whatever_the_weights(parts: dict[str, Any]) -> None:
    """Any beginning is fair; where a task has no more, the others go on."""
    held_out = mixed(parts).load(0).eval
    counts = Counter(row["task"] for row in held_out)
    least = min(counts.values())
    assert [row["task"] for row in held_out[: 3 * least]] == ["math", "words", "sums"] * least
    assert len({*counts.values()}) > 1
    every = Counter(row["task"] for row in mixed(parts).all_problems(0))
    assert every["math"] == 30 and every["words"] == 12


def test_ids_are_those_of_the_rows_and_differ_between_tasks(parts: dict[str, Any]) -> None:
    twice = {"a": parts["sums"], "b": parts["sums"], "c": parts["math"], "d": parts["math"]}
    rows = mixed(twice).load(0).train
    ids = row_ids("train", rows)
    assert len({*ids}) == len(ids) == len(rows)
    turned = mixed(dict(reversed(twice.items()))).load(0).train
    assert sorted(ids) == sorted(row_ids("train", turned))


def test_a_task_of_weight_0_is_only_evaluated(parts: dict[str, Any]) -> None:
    parts["math"]["weight"] = 0
    data = mixed(parts).load(0)
    assert {row["task"] for row in data.train} == {"words", "sums"}
    assert {row["task"] for row in data.eval} == {*parts}


def test_each_task_has_its_own_rewards(parts: dict[str, Any]) -> None:
    task = mixed(parts)
    task.load(0)
    rewards = chosen_rewards({}, task, "mixed", None)
    assert list(rewards) == ["math/math", "words/exact", "words/overlong", "sums/arithmetic"]
    assert rewards["words/overlong"].config.weight == 0.5
    assert isinstance(rewards["sums/arithmetic"].itself, TaskReward)
    assert [name for name, r in rewards.items() if r.applies_to_task("words")] == [
        "words/exact",
        "words/overlong",
    ]
    columns: dict[str, Any] = {
        "task": ["sums", "words", "sums"],
        "answer": ["07", "w1", "07"],
        "gold": [None] * 3,
    }
    values = rewards["sums/arithmetic"](["3+4="] * 3, ["#07", "#07", "07"], **columns)
    assert values == [1.0, None, 0.0]
    assert rewards["words/exact"](["x"] * 3, ["07", "w1", "07"], **columns) == [None, 1.0, None]


def test_rewards_of_the_run_are_for_tasks_without_a_list(parts: dict[str, Any]) -> None:
    chosen: dict[str, Reward] = {"exact": build("reward", "exact")}
    rewards = chosen_rewards(chosen, mixed(parts), "mixed", None)
    assert list(rewards) == ["exact", "words/exact", "words/overlong"]
    assert [rewards["exact"].applies_to_task(name) for name in parts] == [True, False, True]
    del parts["words"]["reward"]
    assert chosen_rewards(chosen, mixed(parts), "mixed", None) == chosen
    for part in parts.values():
        part["reward"] = "exact"
    with pytest.raises(UserError, match=r"reward=\[exact\] is of no use"):
        chosen_rewards(chosen, mixed(parts), "mixed", None)


def test_a_task_and_a_reward_of_the_run_have_different_names(parts: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="both called 'math'.*reward/math/mean"):
        chosen_rewards({"math": build("reward", "math")}, mixed(parts), "mixed", None)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({}, r"task\.parts\.x needs the kind of its task"),
        ({"name": "jsonl"}, r"task\.parts\.x needs the kind of its task"),
        ({"kind": "json"}, r"no task called 'json'\. Did you mean 'jsonl'"),
        ({"kind": "mixed"}, r"task\.parts\.x is a mix itself"),
        ({"kind": "jsonl", "pth": "a"}, r"unknown key task\.parts\.x\.pth"),
        ({"kind": "jsonl", "weight": -1}, r"task\.parts\.x\.weight=-1 is not valid"),
        ({"kind": "jsonl", "weight": "two"}, r"task\.parts\.x\.weight=two is not valid"),
        ({"kind": "jsonl", "weight": float("nan")}, r"weight=nan is not valid"),
        ({"kind": "jsonl", "weight": 0}, r"every weight is 0"),
        ({"kind": "jsonl", "reward": ["maths"]}, r"no reward called 'maths'\. Did you mean 'math'"),
        ({"kind": "jsonl", "reward": []}, r"task\.parts\.x\.reward is empty"),
        ({"kind": "jsonl", "reward": [{"weight": 1}]}, r"write a list of names"),
        (
            {"kind": "jsonl", "reward": [{"kind": "math", "wait": 1}]},
            r"task\.parts\.x\.reward\.wait",
        ),
        ({"kind": "jsonl", "chat_template": "never"}, r"set task\.chat_template"),
        ({"kind": "jsonl", "overlong": "drop"}, r"in one way, task\.overlong=error"),
    ],
)
def test_what_is_wrong_with_a_task_is_told_in_a_line(part: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        mixed({"x": part})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a/b", "", "1a", "reward", "source", "a b"])
def test_a_name_that_metrics_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a task of a mix"):
        mixed({name: {"kind": "jsonl"}})


def test_settings_of_the_mix_hold_for_all(parts: dict[str, Any]) -> None:
    parts["math"]["chat_template"] = "never"
    task = mixed(parts, chat_template="never", overlong="drop")
    assert {member.task.config.chat_template for member in task.members} == {"never"}
    assert {member.task.config.overlong for member in task.members} == {"drop"}


def test_errors_of_data_name_the_task_and_its_settings(tmp_path: Path) -> None:
    for part, said in (
        ({"kind": "jsonl"}, r"x: task\.parts\.x\.path is not set.*task\.parts\.x\.path=train"),
        (
            {"kind": "jsonl", "path": str(tmp_path / "no.jsonl")},
            r"x: task\.parts\.x\.path=.*no\.jsonl does not exist",
        ),
        ({"kind": "reasoning_gym", "dataset": "chain_some"}, r"x: .*Did you mean 'chain_sum'"),
    ):
        with pytest.raises(UserError, match=said):
            mixed({"x": part}).load(0)
    path = write(
        tmp_path / "own.jsonl", [{"prompt": str(i), "answer": 1, "task": 1} for i in range(9)]
    )
    with pytest.raises(UserError, match=r"x: the data has a column 'task'.*rename it"):
        mixed({"x": {"kind": "jsonl", "path": str(path)}}).load(0)


def test_without_tasks_it_cannot_be_used() -> None:
    task = build("task", "mixed")
    for use in (
        lambda: task.load(0),
        lambda: task.all_problems(0),
        lambda: task.mix_rewards({}, {}),
    ):
        with pytest.raises(UserError, match=r"no tasks yet; name some: 'task\.parts=\{math"):
            use()
    assert not task.embedded


def test_it_is_the_embedded_models_if_all_its_tasks_are(parts: dict[str, Any]) -> None:
    assert mixed({"a": {"kind": "arithmetic"}, "b": {"kind": "arithmetic"}}).embedded
    assert not mixed({"a": {"kind": "arithmetic"}, "b": parts["sums"]}).embedded
    larger = {"kind": "arithmetic", "operands": 3, "digits": 3}
    assert mixed({"a": larger, "b": larger}).embedded
    assert mixed({"a": larger, "b": larger}).base == "calls"
    assert not mixed({"a": {"kind": "arithmetic"}, "b": larger}).embedded, "two models"


def test_it_does_what_every_task_must(parts: dict[str, Any]) -> None:
    for check in TASK:
        check(mixed(parts))


def test_a_users_task_takes_part(own_registry: None) -> None:
    class Own(Task):
        """One problem for each side."""

        scores = True

        def load(self, seed: int) -> Any:
            from rlkit.interfaces import TaskData

            return TaskData(train=[{"prompt": "a"}], eval=[{"prompt": "b"}])

        def score(self, completion: str, row: Any) -> float:
            assert set(row) == {"prompt", "task"}
            return float(completion == row["prompt"])

    with scoped():
        register("task", "own_task")(Own)
        task = mixed({"mine": {"kind": "own_task"}, "sums": {"kind": "arithmetic"}})
        assert task.load(0).train[0] == {"prompt": "a", "task": "mine"}
        reward = chosen_rewards({}, task, "mixed", None)["mine/own_task"]
        assert reward(["a", "x"], ["a", "a"], task=["mine", "sums"], answer=[None, "1"]) == [
            1,
            None,
        ]


def test_the_configuration_is_plain(parts: dict[str, Any]) -> None:
    assert json.loads(json.dumps(mixed(parts).config.model_dump(mode="json")))["parts"] == parts
