"""Workers that judge items in parallel: a time limit per item, one retry for a lost worker."""

from __future__ import annotations

import os
import selectors
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlkit.errors import UserError
from rlkit.rewards.process import Worker

MAX_FAILED_STARTS = 3
EVENTS = {"limit": "timeouts", "error": "errors", "lost": "lost"}
"""Verdicts without a score, and what rewards count them as."""


def usual_size() -> int:
    """Processes of a pool: one per processor, at most two."""
    return min(2, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an item."""

    kind: str
    """"score", "limit" (out of time or memory), or, twice in a row: "error" (the worker raised) or
    "lost" (it died)."""
    score: float | None = None
    detail: str = ""

    @property
    def mark(self) -> float | None:
        """What the item is worth: its score, 0 at a limit, None if it could not be judged."""
        return 0.0 if self.kind == "limit" else self.score

    @property
    def event(self) -> str | None:
        """What it is counted as; None with a score."""
        return EVENTS.get(self.kind)


@dataclass
class Batch:
    """The items of one call and their verdicts."""

    items: Sequence[Mapping[str, Any]]
    waiting: deque[int] = field(default_factory=deque)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    retried: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.waiting.extend(range(len(self.items)))

    @property
    def unsettled(self) -> int:
        """Items without a verdict."""
        return len(self.items) - len(self.verdicts)

    def settle(self, item: int, verdict: Verdict) -> None:
        """Keep a verdict; an item whose worker was lost or raised is tried once more."""
        if verdict.kind in ("lost", "error") and item not in self.retried:
            self.retried.add(item)
            self.waiting.append(item)
        else:
            self.verdicts[item] = verdict


class WorkerPool:
    """Up to `size` processes of `python -m module arguments`, started when needed and then kept.

    Safe to call from any thread; calls are serialized.
    """

    def __init__(self, module: str, arguments: Sequence[str], size: int) -> None:
        self.workers: list[Worker] = []
        self._command = (sys.executable, "-P", "-B", "-m", module, *arguments)
        self._size = size
        self._failed_starts = 0
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        weakref.finalize(self, end_all, self.workers)

    def judge(self, items: Sequence[Mapping[str, Any]], seconds: float) -> list[Verdict]:
        """The verdict on each item, which has at most `seconds` of a worker's time.

        Raises UserError if workers cannot be started.
        """
        batch = Batch(items)
        with self._lock:
            try:
                while batch.unsettled:
                    self._hand_out(batch, seconds)
                    self._listen(batch)
            except BaseException:
                # A worker still busy with this call would answer the next one.
                self.close()
                raise
        return [batch.verdicts[i] for i in range(len(items))]

    def close(self) -> None:
        """End all workers. A later call starts new ones."""
        with self._lock:
            for worker in list(self.workers):
                self._end(worker)

    def _hand_out(self, batch: Batch, seconds: float) -> None:
        while len(self.workers) < min(self._size, batch.unsettled):
            worker = Worker(self._command)
            self.workers.append(worker)
            self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
        free = [worker for worker in self.workers if worker.waits]
        for worker in free[: len(batch.waiting)]:
            item = batch.waiting.popleft()
            if not worker.send(item, batch.items[item], seconds):
                self._gone(worker, batch)

    def _listen(self, batch: Batch) -> None:
        """Wait for the first reply or deadline, and handle all that are due."""
        first = min((w.deadline for w in self.workers if not w.waits), default=0.0)
        for key, _ in self._selector.select(max(0.0, first - time.monotonic())):
            worker: Worker = key.data
            reply = worker.receive()
            if reply is None:
                self._gone(worker, batch)
            elif reply and worker.ready:
                self._take(worker, reply, batch)
            elif reply:
                worker.ready, self._failed_starts = True, 0
        for worker in [w for w in self.workers if w.overdue]:
            self._gone(worker, batch)

    def _take(self, worker: Worker, reply: Mapping[str, Any], batch: Batch) -> None:
        assert worker.item is not None
        kind = next(key for key in ("score", "limit", "error") if key in reply)
        score = reply["score"] if kind == "score" else None
        batch.settle(worker.item, Verdict(kind, score, str(reply[kind])))
        worker.item = None
        if reply["retire"]:
            self._end(worker)

    def _gone(self, worker: Worker, batch: Batch) -> None:
        """A worker died, or is out of time and must be killed."""
        if not worker.ready:
            self._check_start(worker)
        elif worker.item is not None:
            out_of_time = Verdict("limit", detail="time")
            batch.settle(worker.item, out_of_time if worker.overdue else Verdict("lost"))
        self._end(worker)

    def _check_start(self, worker: Worker) -> None:
        self._failed_starts += 1
        if self._failed_starts == MAX_FAILED_STARTS:
            self._failed_starts = 0
            raise UserError(
                f"`{' '.join(self._command[-3:])}` did not start in {MAX_FAILED_STARTS} tries; "
                f"it said: {worker.last_words()}"
            )

    def _end(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self._selector.unregister(worker.stdout)
        worker.end()


def end_all(workers: list[Worker]) -> None:
    """End the workers of a pool that is no longer used, and of any pool at interpreter exit."""
    while workers:
        workers.pop().end()
