"""An engine in each of several processes: they divide the requests and all get every answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from rlkit.batch import Request
from rlkit.distributed.processes import Processes
from rlkit.models.policy import Policy
from rlkit.rollout.base import ALL, Generation, RolloutEngine, Stream
from rlkit.rollout.packing import pack, unpack
from rlkit.rollout.remote import RemoteEngine


class SharedEngine(RolloutEngine[Any]):
    """An engine whose requests the processes divide, as its `placement` says.

    Draws and answers are those one process would get.
    """

    def __init__(self, inner: RolloutEngine[Any], processes: Processes) -> None:
        super().__init__(inner.config)
        self.inner, self.processes = inner, processes
        self.exact, self.placement = inner.exact, inner.placement
        self.uses_policy = inner.placement == "each" and not isinstance(inner, RemoteEngine)
        """Whether it generates with this process's own model."""

    def start(self, policy: Policy, seed: int) -> None:
        """Start the engine where it is."""
        self.policy = policy
        self.where(lambda: self.inner.start(policy, seed))

    def sync(self, step: int) -> None:
        """Sync the engine where it is."""
        self.where(lambda: self.inner.sync(step))

    def generate(
        self,
        requests: Sequence[Request],
        stream: Stream,
        *,
        greedy: bool = False,
        part: slice = ALL,
    ) -> list[list[Generation]]:
        """Responses to each request, in order."""
        requests = requests[part]
        own = self.own(requests)
        found: list[list[Generation]] = []
        with self.policy.whole() if self.uses_policy else nullcontext():
            if requests[own]:
                found = self.inner.generate(requests, stream, greedy=greedy, part=own)
        return self.all(found, requests)

    def close(self) -> None:
        """Release the engine."""
        self.inner.close()

    def where(self, call: Callable[[], None]) -> None:
        """Make a call in the processes that have an engine."""
        with self.policy.whole():
            if self.inner.placement == "first":
                self.processes.first(call)
            else:
                call()

    def own(self, requests: Sequence[Request]) -> slice:
        """The requests that this process answers."""
        if self.inner.placement == "first":
            return slice(0, len(requests) if self.processes.is_first else 0)
        return self.processes.own(len(requests))

    def all(
        self, own: Sequence[Sequence[Generation]], requests: Sequence[Request]
    ) -> list[list[Generation]]:
        """The answers of every process, request by request."""
        packed = self.processes.gather(pack([answer for group in own for answer in group]))
        flat = iter([answer for tree in packed for answer in unpack(tree)])
        return [[next(flat) for _ in range(request.n)] for request in requests]


class SharedRemote(SharedEngine):
    """The same where each process has its engine in a process of its own."""

    inner: RemoteEngine

    def __init__(self, inner: RemoteEngine, processes: Processes) -> None:
        super().__init__(inner, processes)
        self.asked: dict[int, tuple[Sequence[Request], int | None]] = {}
        """Requests, and the number under which this process's part of them was submitted."""
        self.number = 0

    def submit(self, requests: Sequence[Request], stream: Stream, *, greedy: bool = False) -> int:
        """Ask for responses; returns the number to `wait` for."""
        own = self.own(requests)
        number = None
        if requests[own]:
            number = self.inner.submit(requests, stream, greedy=greedy, part=own)
        self.number += 1
        self.asked[self.number] = (requests, number)
        return self.number

    def wait(self, number: int) -> list[list[Generation]]:
        """The responses to what was submitted under a number, request by request."""
        requests, own = self.asked.pop(number)
        return self.all(self.inner.wait(own) if own is not None else [], requests)
