"""Plain functions as rewards."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.interfaces import Reward
from rlkit.registry import from_import_path
from rlkit.rewards.function import FunctionConfig, reward_class
from rlkit.rewards.scoring import RewardSet
from tests.cli import SMALL, metrics, run, without_times


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


def test_an_argument_that_is_nearly_a_column_is_told_which() -> None:
    def misspelt(completions, anser):
        raise AssertionError

    with pytest.raises(UserError, match=r"'anser', .* Did you mean 'answer'\? There are: "):
        call(misspelt)


@pytest.mark.usefixtures("own_registry")
def test_the_registry_takes_a_function_by_its_import_path(tmp_path: Path) -> None:
    file = tmp_path / "their_rewards.py"
    file.write_text("def vowels(completions):\n    return [c.count('a') for c in completions]\n")
    entry = from_import_path("reward", f"{file}:vowels")
    assert entry.source == file
    assert entry.import_path == "rlkit_plugin_their_rewards:vowels"
    assert entry.cls(entry.config(weight=2))(["p"], ["banana"], answer=["x"]) == [3]
    assert from_import_path("reward", f"{file}:vowels") is entry
    file.write_text("import math\n" + file.read_text())
    other = file.rename(tmp_path / "other_rewards.py")
    with pytest.raises(UserError, match=r"has no 'vowel'. Did you mean 'vowels'\? Known: vowels$"):
        from_import_path("reward", f"{other}:vowel")


def test_a_function_may_say_whether_it_marks_correctness() -> None:
    def silent(completions: list[str], **columns: object) -> list[float]:
        return [0.0 for _ in completions]

    def spoken(completions: list[str], **columns: object) -> list[float]:
        return [0.0 for _ in completions]

    spoken.marks_correctness = False  # type: ignore[attr-defined]
    assert reward_class(silent).marks_correctness is None
    assert reward_class(spoken).marks_correctness is False


@pytest.mark.slow
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


# ---- one call per response

AMPLE = 2.0
"""Seconds within which a call that does not wait returns on any machine."""


def class_of(function, **settings) -> Reward:
    return reward_class(function)(FunctionConfig(**settings))


def scored(reward: Reward, count: int = 4) -> list:
    texts = [str(i) for i in range(count)]
    ids = [[i] for i in range(count)]
    return RewardSet({"r": reward}).score(texts, texts, ids, {"answer": texts}).total


def test_a_call_per_response_has_lists_of_one_entry_and_keeps_the_order() -> None:
    """The last begins first to answer: each waits for the one after it."""
    done = [threading.Event() for _ in range(5)]
    done[4].set()

    def each(prompts, completions, answer, completion_ids):
        assert prompts == completions == answer and len(completion_ids) == 1
        (place,) = completion_ids[0]
        done[place + 1].wait(60)
        done[place].set()
        return [float(place)]

    assert scored(class_of(each, concurrency=4)) == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_so_many_calls_run_at_a_time_in_threads(concurrency: int) -> None:
    meeting, lock = threading.Barrier(concurrency), threading.Lock()
    running, most = 0, 0

    def each(completions):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meeting.wait(60)
        with lock:
            running -= 1
        return [1.0]

    assert (
        scored(class_of(each, concurrency=concurrency), 3 * concurrency) == [1.0] * 3 * concurrency
    )
    assert most == concurrency


def test_so_many_async_calls_wait_at_a_time_in_one_event_loop() -> None:
    loops, running, most = set(), 0, 0

    async def each(completions):
        nonlocal running, most
        loops.add(asyncio.get_running_loop())
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return [float(completions[0])]

    assert scored(class_of(each, concurrency=3), 6) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert most == 3 and len(loops) == 1


def test_several_functions_of_both_kinds_with_calls_per_response() -> None:
    async def waits(completions):
        await asyncio.sleep(0)
        return [float(completions[0])]

    def blocks(completions):
        return [10 * float(completions[0])]

    rewards = {"a": class_of(waits, concurrency=2), "b": class_of(blocks, concurrency=2)}
    rewards["c"] = class_of(slow)
    texts = ["0", "1", "2"]
    found = RewardSet(rewards).score(texts, texts, [[], [], []], {})
    assert found.components == {"a": [0, 1, 2], "b": [0, 10, 20], "c": [1, 1, 1]}
    assert list(found.components) == ["a", "b", "c"]


@pytest.mark.parametrize("is_async", [False, True])
def test_the_error_is_that_of_the_first_response_to_fail_and_names_it(is_async: bool) -> None:
    """Response 2 fails first, response 1 later: 1 is named, and nothing begins after that.

    In threads, response 0 waits until that of response 2 has ended, which it does once it has told.
    """
    began, two_failed, failing = [], threading.Event(), []

    def fails(completions):
        began.append(completions[0])
        if completions[0] == "2":
            failing.append(threading.current_thread())
            two_failed.set()
            raise ValueError("two")
        assert two_failed.wait(60)
        if completions[0] == "1":
            raise KeyError("one")
        failing[0].join(60)
        return [0.0]

    async def fails_later(completions):
        began.append(completions[0])
        if completions[0] == "1":
            await asyncio.sleep(0.05)
            raise KeyError("one")
        if completions[0] == "2":
            raise ValueError("two")
        return [0.0]

    function = fails_later if is_async else fails
    with pytest.raises(UserError, match=r"'r' raised KeyError for completion 1: 'one' \(.*test_f"):
        scored(class_of(function, concurrency=3), 8)
    assert sorted(began) == ["0", "1", "2", "3"][: len(began)] and len(began) <= 4


def test_a_value_that_is_none_of_a_response_names_it() -> None:
    def wrong(completions):
        return [float("nan") if completions[0] == "2" else 1.0]

    def two(completions):
        return [1.0, 2.0]

    with pytest.raises(UserError, match="'wrong' returned nan for completion 2"):
        scored(class_of(wrong, concurrency=2))
    with pytest.raises(UserError, match="'two' returned 2 values for 1 completions"):
        scored(class_of(two, concurrency=2))


@pytest.mark.slow
def test_a_late_call_is_an_error_that_names_the_response() -> None:
    over = threading.Event()

    def hangs(completions):
        return [1.0] if completions[0] != "2" else [float(over.wait(60))]

    with pytest.raises(UserError, match=r"'hangs' .* 2 s for completion 2; .*hangs.late=none"):
        scored(class_of(hangs, concurrency=4, time_limit=AMPLE))
    over.set()


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("concurrency", [None, 2])
def test_a_late_call_is_none_by_choice_and_counted_never_zero(
    is_async: bool, concurrency: int | None
) -> None:
    over = threading.Event()

    def hangs(completions):
        if "2" in completions:
            over.wait(60)
        return [1.0 for _ in completions]

    async def hangs_waiting(completions):
        if "2" in completions:
            await asyncio.sleep(60)
        return [1.0 for _ in completions]

    function = hangs_waiting if is_async else hangs
    limit = AMPLE if concurrency else 0.1
    reward = class_of(function, concurrency=concurrency, time_limit=limit, late="none")
    texts = ["0", "1", "2", "3"]
    found = RewardSet({"r": reward}).score(texts, texts, [[]] * 4, {})
    over.set()
    assert found.total == ([1, 1, None, 1] if concurrency else [None] * 4)
    assert found.counts == {"timeouts": 1 if concurrency else 4}
    assert reward.counts() == {"timeouts": 0}


def test_an_async_function_that_blocks_its_loop_is_late_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rlkit.rewards.function.GRACE", 0.05)
    over = threading.Event()

    async def blocks(completions):
        over.wait(60)
        return [1.0 for _ in completions]

    with pytest.raises(UserError, match="'blocks' has not returned within 0.1 s"):
        scored(class_of(blocks, time_limit=0.1))
    assert scored(class_of(blocks, time_limit=0.1, late="none"), 2) == [None, None]
    over.set()


def test_what_calls_may_take_in_all() -> None:
    assert class_of(slow, time_limit=2.0).longest(5) == 2.0  # type: ignore[attr-defined]
    assert class_of(slow, time_limit=2.0, concurrency=2).longest(5) == 6.0  # type: ignore[attr-defined]
    assert class_of(slow, time_limit=None, concurrency=2).longest(5) is None  # type: ignore[attr-defined]


STEPS = """
import asyncio

def digits(completions, **columns):
    return [sum(map(str.isdigit, text)) / 10 for text in completions]

async def later(completions, **columns):
    await asyncio.sleep(0)
    return digits(completions)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "later"])
def test_a_run_is_the_same_however_many_calls_it_makes_at_a_time(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STEPS)
    chosen = (
        *SMALL,
        "algorithm=grpo",
        f"reward=[{tmp_path / 'mine.py'}:{name}]",
        "eval.problems=4",
    )
    found = []
    for calls in ("null", "3"):
        setting = (f"reward.{name}.concurrency={calls}", f"output_dir=calls-{calls}")
        out = run(*chosen, *setting, cwd=tmp_path)
        assert out.status == 0, out.err
        found.append(without_times(metrics(tmp_path / f"calls-{calls}")))
    assert found[0] == found[1] and found[0][1]["reward/timeouts"] == 0.0
