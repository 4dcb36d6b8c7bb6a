"""Plain functions as rewards."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.interfaces import Reward
from rlkit.registry import from_import_path
from rlkit.rewards.function import FunctionConfig, reward_class


def brevity(completions, **kwargs):
    """Shorter is better."""
    assert set(kwargs) == {"prompts", "answer", "completion_ids"}
    return [-len(c) for c in completions]


def strict(completions, answer):
    return [float(c == a) for c, a in zip(completions, answer, strict=True)]


def with_ids(prompts, completions, completion_ids, scale=2.0):
    return [scale * len(ids) for ids in completion_ids]


async def slow(completions, **kwargs):
    await asyncio.sleep(0.01)
    return [1.0 for _ in completions]


COLUMNS: dict[str, list] = {"answer": ["a", "x"], "completion_ids": [[1, 2], [3]]}


def call(function) -> list:
    return reward_class(function)()(["p", "q"], ["a", "bcd"], **COLUMNS)


def test_the_class_is_a_reward_named_after_the_function() -> None:
    cls = reward_class(brevity)
    assert issubclass(cls, Reward)
    assert cls.Config is FunctionConfig and FunctionConfig().time_limit == 600
    assert (cls.__name__, cls.__module__, cls.__doc__) == (
        "brevity",
        brevity.__module__,
        "Shorter is better.",
    )
    assert cls(FunctionConfig(weight=0.5)).config.weight == 0.5


def test_the_same_function_gives_the_same_class() -> None:
    assert reward_class(brevity) is reward_class(brevity)
    assert reward_class(brevity) is not reward_class(strict)


def test_a_function_with_kwargs_gets_everything() -> None:
    assert call(brevity) == [-1, -3]


def test_a_function_without_kwargs_gets_only_what_it_names() -> None:
    assert call(strict) == [1.0, 0.0]


def test_completion_ids_are_passed_and_defaults_are_kept() -> None:
    assert call(with_ids) == [4.0, 2.0]


def test_a_callable_object_is_accepted() -> None:
    assert call(partial(with_ids, scale=3.0)) == [6.0, 3.0]


def test_an_async_function_is_run_also_where_an_event_loop_runs_already() -> None:
    assert call(slow) == [1.0, 1.0]

    async def notebook():
        return call(slow)

    assert asyncio.run(notebook()) == [1.0, 1.0]


def test_an_exception_of_an_async_function_comes_through() -> None:
    async def fails(completions, **kwargs):
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        call(fails)


def needs_solution(completions, solution):
    return [0.0] * len(completions)


def also_needs_solution(completions, *, solution, **kwargs):
    return [0.0] * len(completions)


@pytest.mark.parametrize("function", [needs_solution, also_needs_solution])
def test_a_required_argument_that_is_no_column_is_named_with_those_there_are(function) -> None:
    with pytest.raises(
        UserError, match=r"'solution'.*answer, completion_ids, completions, prompts"
    ):
        call(function)


@pytest.mark.usefixtures("own_registry")
def test_the_registry_takes_a_function_by_its_import_path(tmp_path: Path) -> None:
    file = tmp_path / "their_rewards.py"
    file.write_text("def vowels(completions):\n    return [c.count('a') for c in completions]\n")
    entry = from_import_path("reward", f"{file}:vowels")
    assert entry.source == file
    assert entry.import_path == "rlkit_plugin_their_rewards:vowels"
    assert entry.cls(entry.config(weight=2))(["p"], ["banana"], answer=["x"]) == [3]
    assert from_import_path("reward", f"{file}:vowels") is entry


def test_a_function_may_say_whether_it_marks_correctness() -> None:
    def silent(completions: list[str], **columns: object) -> list[float]:
        return [0.0 for _ in completions]

    def spoken(completions: list[str], **columns: object) -> list[float]:
        return [0.0 for _ in completions]

    spoken.marks_correctness = False  # type: ignore[attr-defined]
    assert reward_class(silent).marks_correctness is None
    assert reward_class(spoken).marks_correctness is False


def test_an_async_function_that_hangs_does_not_keep_the_process_alive() -> None:
    """Python waits for the threads of executors when it ends; the process would run into 60 s."""
    code = (
        "import asyncio\n"
        "from rlkit.errors import UserError\n"
        "from rlkit.rewards.function import FunctionConfig, reward_class\n"
        "async def hangs(completions):\n"
        "    await asyncio.sleep(1000)\n"
        "try:\n"
        "    reward_class(hangs)(FunctionConfig(time_limit=0.1))(['p'], ['c'])\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("reward 'hangs' has not returned within 0.1 s")


def test_async_functions_are_known_before_they_are_called() -> None:
    class Judge:
        __name__ = "judge"

        async def __call__(self, completions: list[str]) -> list[float]:
            return [0.0 for _ in completions]

    async def compute_score(solution_str: str, ground_truth: str) -> float:
        return 0.0

    for function in (slow, partial(slow, scale=2), Judge(), compute_score):
        assert reward_class(function).is_async  # type: ignore[attr-defined]
    assert not reward_class(brevity).is_async  # type: ignore[attr-defined]
