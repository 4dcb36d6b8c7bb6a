"""Which rewards of a step run at the same time, and that nothing else changes by it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.interfaces import Reward
from rlkit.rewards.function import FunctionConfig, reward_class
from rlkit.rewards.scoring import RewardResult, RewardSet

LONG = 60.0
"""Seconds that are never waited for unless a test fails."""


def reward(function: Callable[..., Any], seconds: float = LONG, *, beside: bool = False) -> Reward:
    function.beside_others = beside  # type: ignore[attr-defined]
    return reward_class(function)(FunctionConfig(time_limit=seconds))


def score(**rewards: Reward) -> RewardResult:
    return RewardSet(rewards).score(["p", "q"], ["c", "d"], [[1], [2, 3]], {})


def test_async_functions_wait_for_one_another_in_one_event_loop() -> None:
    """Each returns only after the other has begun."""
    begun: dict[str, asyncio.Event] = {}

    async def one(completions: list[str]) -> list[float]:
        begun["one"] = asyncio.Event()
        while "two" not in begun:
            await asyncio.sleep(0)
        begun["two"].set()
        await begun["one"].wait()
        return [1.0 for _ in completions]

    async def two(completions: list[str]) -> list[float]:
        begun["two"] = asyncio.Event()
        await begun["two"].wait()
        begun["one"].set()
        return [2.0 for _ in completions]

    found = score(one=reward(one), two=reward(two))
    assert found.total == [3.0, 3.0] and list(found.components) == ["one", "two"]


def test_rewards_that_may_run_beside_the_others() -> None:
    """Each of the three passes only when all are there."""
    meeting = threading.Barrier(3)

    def server(completions: list[str]) -> list[float]:
        meeting.wait(LONG)
        return [1.0 for _ in completions]

    def other_server(completions: list[str]) -> list[float]:
        return server(completions)

    def plain(completions: list[str]) -> list[float]:
        return [2 * value for value in server(completions)]

    found = score(
        plain=reward(plain), a=reward(server, beside=True), b=reward(other_server, beside=True)
    )
    assert list(found.components.items()) == [("plain", [2, 2]), ("a", [1, 1]), ("b", [1, 1])]


def test_other_functions_are_called_one_after_the_other_and_async_ones_last() -> None:
    events: list[str] = []
    second_began = threading.Event()

    async def last(completions: list[str]) -> list[float]:
        events.append("last")
        return [0.0 for _ in completions]

    def first(completions: list[str]) -> list[float]:
        events.append("first begins")
        assert not second_began.wait(0.2)
        events.append("first ends")
        return [0.0 for _ in completions]

    def second(completions: list[str]) -> list[float]:
        second_began.set()
        events.append("second")
        return [0.0 for _ in completions]

    score(last=reward(last), first=reward(first), second=reward(second))
    assert events == ["first begins", "first ends", "second", "last"]


def fails(name: str) -> dict[str, Callable[[], Reward]]:
    """Rewards of every kind that fail, each with an error of its own."""

    def plain(completions: list[str]) -> list[float]:
        raise ValueError(f"plain {name}")

    def beside(completions: list[str]) -> list[float]:
        raise ValueError(f"beside {name}")

    async def waits(completions: list[str]) -> list[float]:
        raise ValueError(f"waits {name}")

    def short(completions: list[str]) -> list[float]:
        return [0.0]

    return {
        "plain": lambda: reward(plain),
        "beside": lambda: reward(beside, beside=True),
        "waits": lambda: reward(waits),
        "short": lambda: reward(short),
    }


KINDS = ("plain", "beside", "waits", "short")


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_the_error_is_that_of_the_first_in_the_order_of_the_run(first: str, second: str) -> None:
    def right(completions: list[str]) -> list[float]:
        return [0.0 for _ in completions]

    with pytest.raises(UserError) as alone:
        score(a=fails("a")[first]())
    with pytest.raises(UserError) as among:
        score(right=reward(right), a=fails("a")[first](), b=fails("b")[second]())
    assert str(among.value) == str(alone.value)


def test_a_reward_after_one_that_raised_is_not_waited_for_in_the_event_loop() -> None:
    async def never(completions: list[str]) -> list[float]:
        await asyncio.sleep(LONG)
        raise AssertionError("was waited for")

    with pytest.raises(UserError, match="plain a"):
        score(a=fails("a")["plain"](), never=reward(never))


def test_each_async_function_has_its_own_time_limit() -> None:
    async def returns(completions: list[str]) -> list[float]:
        await asyncio.sleep(0.3)
        return [1.0 for _ in completions]

    async def hangs(completions: list[str]) -> list[float]:
        await asyncio.sleep(LONG)
        return []

    with pytest.raises(UserError, match=r"'hangs' has not returned within 0.1 s.*hangs.time_limit"):
        score(returns=reward(returns), hangs=reward(hangs, 0.1))


def test_an_async_function_that_blocks_the_others_is_an_error_after_all_their_time() -> None:
    over = threading.Event()

    async def blocks(completions: list[str]) -> list[float]:
        over.wait(LONG)
        return [0.0 for _ in completions]

    async def innocent(completions: list[str]) -> list[float]:
        return [0.0 for _ in completions]

    try:
        with pytest.raises(UserError, match=r"'innocent', 'blocks' have .* within 0\.3 s"):
            score(innocent=reward(innocent, 0.2), blocks=reward(blocks, 0.1))
    finally:
        over.set()


def test_every_function_sees_all_responses_at_once() -> None:
    """A function may normalize over the step's responses."""
    seen: list[tuple[str, list[str]]] = []

    def plain(completions: list[str]) -> list[float]:
        seen.append(("plain", completions))
        return [0.0 for _ in completions]

    def beside(completions: list[str]) -> list[float]:
        seen.append(("beside", completions))
        return [0.0 for _ in completions]

    async def waits(completions: list[str]) -> list[float]:
        seen.append(("waits", completions))
        return [0.0 for _ in completions]

    score(a=reward(plain), b=reward(beside, beside=True), c=reward(waits))
    assert sorted(seen) == [(kind, ["c", "d"]) for kind in ("beside", "plain", "waits")]
