"""Threads that may be left alone."""

from __future__ import annotations

import asyncio
import queue
import threading

import pytest

from rlkit.rewards.waiting import Late, in_thread, run_awaitable, within


def test_what_a_call_returns_or_raises_comes_through() -> None:
    assert within(60, lambda: 1) == 1 and within(None, lambda: 2) == 2
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 // 0)


def test_a_call_that_takes_too_long_is_late_even_if_it_raises_a_timeout_of_its_own() -> None:
    over = threading.Event()
    with pytest.raises(Late):
        within(0.05, lambda: over.wait(60))
    over.set()

    def times_out() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        within(60, times_out)


def test_an_event_loop_waits_for_threads_and_may_leave_them() -> None:
    """The thread that is left ends after its loop, of which it hears nothing.

    Pytest makes an exception in a thread a warning, and so an error here.
    """
    over = threading.Event()
    threads: queue.Queue[threading.Thread] = queue.Queue()

    def wait() -> None:
        threads.put(threading.current_thread())
        over.wait(60)

    async def both() -> int:
        left = asyncio.ensure_future(in_thread(wait))
        value = await in_thread(lambda: 3)
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 // 0)
        left.cancel()
        return value

    assert run_awaitable(both()) == 3
    over.set()
    thread = threads.get(timeout=60)
    thread.join(60)
    assert not thread.is_alive()
