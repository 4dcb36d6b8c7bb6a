"""Calls in threads of their own, which may be left alone when they take too long."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Late(Exception):
    """A call took longer than it may."""


def in_background(call: Callable[[], T], then: Callable[[Future[T]], None]) -> None:
    """Make a call in a thread, which hands over what came of it.

    The thread cannot be stopped, but does not keep the process alive either.
    """

    def work() -> None:
        future: Future[T] = Future()
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)
        then(future)

    threading.Thread(target=work, name="reward", daemon=True).start()


def within(seconds: float | None, call: Callable[[], T]) -> T:
    """What a call in a thread returns or raises. Raises Late after so many seconds, if any."""
    answer: queue.Queue[Future[T]] = queue.Queue()
    in_background(call, answer.put)
    try:
        return answer.get(timeout=seconds).result()
    except queue.Empty:
        raise Late from None


async def in_thread(call: Callable[[], T]) -> T:
    """What a call in a thread returns or raises, for an event loop; it may be given up."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Future[T]] = loop.create_future()

    def settle(found: Future[T]) -> None:
        if not answer.done():
            answer.set_result(found)

    def hand_over(found: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            loop.call_soon_threadsafe(settle, found)

    in_background(call, hand_over)
    return (await answer).result()


def run_awaitable(awaitable: Awaitable[Any]) -> Any:
    """The result of an awaitable.

    It runs in a thread of its own: a notebook's thread already has an event loop.
    """

    async def wait() -> Any:
        return await awaitable

    return within(None, lambda: asyncio.run(wait()))
