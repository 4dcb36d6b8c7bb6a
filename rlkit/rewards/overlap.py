"""The calls of a step's rewards: which of them run at the same time.

    in a thread each     rewards that wait for processes of their own (`beside_others`)
    one after the other  all others, in the order of the run, in the calling thread
    together             async functions, after those, in one event loop

So two pieces of a user's code never run at the same moment, unless they ask for it, and what they
draw from a shared generator does not depend on timing. Every reward is called once and sees all
responses of the step: a function may normalize over them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rlkit.errors import UserError
from rlkit.interfaces import Reward
from rlkit.rewards.function import GRACE, FunctionReward
from rlkit.rewards.waiting import Late, run_awaitable, within


@dataclass(frozen=True, slots=True)
class Arguments:
    """What every reward is called with."""

    prompts: Sequence[Any]
    completions: Sequence[Any]
    columns: Mapping[str, Sequence[Any]]
    """`completion_ids`, `finish_reasons` and the columns of the task."""

    def given_to(self, call: Callable[..., Any]) -> Any:
        """What a reward, or a method with its signature, returns for them."""
        return call(self.prompts, self.completions, **self.columns)


def called(rewards: Mapping[str, Reward], given: Arguments) -> dict[str, Future[Any]]:
    """What each reward returned or raised, in the order of the run; none after the first to raise.

    Some of those after it may have been called all the same.
    """
    found: dict[str, Future[Any]] = {}
    awaited: dict[str, FunctionReward] = {}
    several = len(rewards) > 1
    with ThreadPoolExecutor(max_workers=len(rewards)) as threads:
        for name, reward in rewards.items():
            if several and reward.itself.beside_others:
                found[name] = threads.submit(given.given_to, reward)
        for name, reward in rewards.items():
            if name in found:
                continue
            if several and isinstance(reward, FunctionReward) and reward.is_async:
                awaited[name] = reward
                continue
            found[name] = outcome(lambda call=reward: given.given_to(call))  # type: ignore[misc]
            if found[name].exception() is not None:
                break
        found |= together(awaited, given)
    return until_raised({name: found[name] for name in rewards if name in found})


def until_raised(found: Mapping[str, Future[Any]]) -> dict[str, Future[Any]]:
    """The outcomes up to the first exception."""
    out: dict[str, Future[Any]] = {}
    for name, result in found.items():
        out[name] = result
        if result.exception() is not None:
            break
    return out


def outcome(call: Callable[[], Any]) -> Future[Any]:
    """What a call returns or raises."""
    result: Future[Any] = Future()
    try:
        result.set_result(call())
    except Exception as error:
        result.set_exception(error)
    return result


def together(rewards: Mapping[str, FunctionReward], given: Arguments) -> dict[str, Future[Any]]:
    """What each of some async functions returns or raises; all wait in one event loop.

    Raises UserError if one keeps the loop from running for longer than their time limits together.
    """
    if not rewards:
        return {}
    count = len(given.completions)
    limits = [reward.longest(count) for reward in rewards.values()]
    known = [limit for limit in limits if limit is not None]
    seconds = sum(known) if len(known) == len(limits) else None

    async def each() -> list[Any]:
        calls = (given.given_to(reward.awaited) for reward in rewards.values())
        return await asyncio.gather(*calls, return_exceptions=True)

    def run() -> list[Any]:
        results: list[Any] = run_awaitable(each())
        return results

    try:
        results = run() if seconds is None else within(seconds + GRACE, run)
    except Late:
        assert seconds is not None
        if any(reward.config.late == "error" for reward in rewards.values()):
            raise blocked(rewards, seconds) from None
        results = [reward.left_out(count) for reward in rewards.values()]
    return {
        name: outcome(lambda value=value: raised_or(value))  # type: ignore[misc]
        for name, value in zip(rewards, results, strict=True)
    }


def blocked(names: Mapping[str, Any], seconds: float) -> UserError:
    """The error of functions that do not let one another run."""
    quoted = ", ".join(f"'{name}'" for name in names)
    return UserError(
        f"the async rewards {quoted} have not returned within {seconds:g} s, their "
        "time limits together; one of them blocks the others: await what it waits for"
    )


def raised_or(value: Any) -> Any:
    """The value; raises it if it is an exception."""
    if isinstance(value, BaseException):
        raise value
    return value
