"""Limits on the time of a tool's call, and how it may fail."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any


class OutOfTime(BaseException):
    """The time of a call is over. No `except Exception` in the user's code stops it."""


class Told(Exception):
    """A failure of a tool whose text is the whole answer."""


def in_time(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` returns or raises; OutOfTime, once, if Python code in it takes longer.

    Code that catches it, and native code, goes on until the process is killed from outside.
    """

    def late(signum: int, frame: Any) -> None:
        raise OutOfTime(seconds)

    signal.signal(signal.SIGALRM, late)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def guarded(seconds: float, call: Callable[[], Any]) -> Any:
    """What a tool returns, or what it raised."""
    try:
        return in_time(seconds, call)
    except (Exception, OutOfTime) as error:
        return error
    except SystemExit as error:
        return RuntimeError(f"SystemExit: {error}")


async def limited(value: Awaitable[Any], seconds: float) -> Any:
    """What an awaitable gives. Raises OutOfTime if it takes longer."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await value
    except TimeoutError:
        if limit.expired():
            raise OutOfTime(seconds) from None
        raise


async def gathered(values: Sequence[Awaitable[Any]], seconds: float) -> list[Any]:
    """What each gives, or what it raised."""

    async def one(value: Awaitable[Any]) -> Any:
        try:
            return await limited(value, seconds)
        except (Exception, OutOfTime) as error:
            return error

    return list(await asyncio.gather(*(one(value) for value in values)))
