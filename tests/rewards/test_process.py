"""One worker process: its states, its replies in pieces, its end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rlkit.rewards.process import Worker, worker_environment
from tests.rewards.processes import is_alive

Start = Callable[[str], Worker]
ECHO = """
import sys
print('{"ready": true}', flush=True)
for line in sys.stdin:
    half = len(line) // 2
    print(line[:half], end="", flush=True)
    print(line[half:], end="", flush=True)
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a worker of some code; ends it after the test."""
    workers: list[Worker] = []

    def run(code: str) -> Worker:
        workers.append(Worker([sys.executable, "-S", "-c", code]))
        return workers[-1]

    yield run
    for worker in workers:
        worker.end()


def reply(worker: Worker) -> dict[str, Any] | None:
    """The next whole reply."""
    found = worker.receive()
    while found == {}:
        found = worker.receive()
    return found


def test_a_worker_answers_each_line_however_its_pieces_arrive(start: Start) -> None:
    worker = start(ECHO)
    assert not worker.waits and not worker.overdue
    assert reply(worker) == {"ready": True}
    worker.ready = True
    assert worker.waits
    assert worker.send(3, {"text": "x" * 100_000}, 60.0)
    assert worker.item == 3 and not worker.waits and not worker.overdue
    assert reply(worker) == {"text": "x" * 100_000}


def test_an_item_is_overdue_after_its_seconds(start: Start) -> None:
    worker = start(ECHO)
    assert reply(worker) == {"ready": True}
    worker.ready = True
    worker.send(0, {}, 0.0)
    assert worker.overdue
    worker.item = None
    assert not worker.overdue, "one that waits is never late"


def test_a_worker_that_is_gone_gives_none_and_takes_nothing(start: Start) -> None:
    worker = start("import sys; print('no luck', file=sys.stderr)")
    assert worker.receive() is None
    assert worker.last_words() == "no luck"
    deadline = time.monotonic() + 20
    while worker.send(0, {"text": "x" * 100_000}, 1.0):
        assert time.monotonic() < deadline
    assert start("").receive() is None


def test_the_end_kills_the_process(start: Start) -> None:
    worker = Worker([sys.executable, "-S", "-c", ECHO])
    assert reply(worker) == {"ready": True} and is_alive(worker.pid)
    worker.end()
    assert not is_alive(worker.pid)


def test_a_worker_sees_no_secrets_and_finds_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setattr(sys, "path", ["", "/somewhere"])
    found = worker_environment()
    assert "SECRET_TOKEN" not in found and found["LANG"] == "C.UTF-8"
    assert found["PYTHONPATH"] == os.pathsep.join([os.getcwd(), "/somewhere"])
    assert found["PYTHONHASHSEED"] == "0"
