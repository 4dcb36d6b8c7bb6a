"""Responses from several servers that may fail: each is answered exactly once."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from rlkit.errors import UserError
from rlkit.rollout.vllm.client import Server, ServerFault
from rlkit.rollout.vllm.sampling import Answer, Job

log = logging.getLogger(__name__)


def drop(server: Server, fault: ServerFault) -> None:
    """Stop using a server, and log why, once."""
    if server.fault is None:
        server.fault = str(fault)
        log.warning("vLLM server %s is dropped: %s", server.address, fault)


def living(servers: Sequence[Server]) -> list[Server]:
    """The servers still in use. Raises UserError if there is none."""
    found = [server for server in servers if server.fault is None]
    if not found:
        reasons = "; ".join(f"{server.address}: {server.fault}" for server in servers)
        raise UserError(f"no vLLM server is left ({reasons})")
    return found


def on_each(servers: Sequence[Server], call: Callable[[Server], None]) -> None:
    """Make a call on every living server at the same time; those that fail are dropped.

    Raises UserError if none is left.
    """

    def guarded(server: Server) -> None:
        try:
            call(server)
        except ServerFault as fault:
            drop(server, fault)

    chosen = living(servers)
    with ThreadPoolExecutor(len(chosen)) as pool:
        list(pool.map(guarded, chosen))
    living(servers)


class Dispatch:
    """Jobs in progress on several servers.

    A job belongs to one server at a time. It leaves the queue when a server takes it, comes back
    when that server fails, and its answer is kept at the job's place.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.waiting = deque(range(len(jobs)))
        self.answers: dict[int, Answer] = {}
        self.changed = threading.Condition()

    def run(self, servers: Sequence[Server], concurrency: int) -> list[Answer]:
        """The answer to each job, in order. Raises UserError if no server is left."""
        chosen = living(servers)
        each = min(concurrency, len(self.jobs))
        with ThreadPoolExecutor(len(chosen) * each) as pool:
            lines = [pool.submit(self._work, server) for server in chosen for _ in range(each)]
        for line in lines:
            line.result()
        if len(self.answers) < len(self.jobs):
            living(servers)
        return [self.answers[place] for place in range(len(self.jobs))]

    def _work(self, server: Server) -> None:
        """Take jobs for a server until all are answered or the server is dropped."""
        while (place := self._next(server)) is not None:
            answer = None
            try:
                answer = server.complete(self.jobs[place])
            except ServerFault as fault:
                with self.changed:
                    drop(server, fault)
            finally:
                self._end(place, answer)

    def _next(self, server: Server) -> int | None:
        """The place of a job; waits while others may still give one back."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self._over(server))
            return None if self._over(server) else self.waiting.popleft()

    def _over(self, server: Server) -> bool:
        return server.fault is not None or len(self.answers) == len(self.jobs)

    def _end(self, place: int, answer: Answer | None) -> None:
        """Keep an answer, or give its job back."""
        with self.changed:
            if answer is None:
                self.waiting.append(place)
            else:
                self.answers[place] = answer
            self.changed.notify_all()
