"""One engine per rank, or one for all: the ranks share the requests and all get every response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from rlkit.batch import Request
from rlkit.distributed.processes import Processes
from rlkit.interfaces import State
from rlkit.models.policy import Policy
from rlkit.rollout.base import EngineAround, Generation, GenerationCall, RolloutEngine
from rlkit.rollout.packing import pack, unpack
from rlkit.rollout.remote import RemoteEngine
from rlkit.rollout.turns import TurnsEngine


class SharedEngine(EngineAround):
    """An engine whose requests the ranks share, as its `hosted_by` says.

    Draws and responses are those a single process would get.
    """

    def __init__(self, inner: RolloutEngine[Any], processes: Processes) -> None:
        super().__init__(inner)
        self.processes = processes
        remote = isinstance(inner, RemoteEngine)
        engine = inner.inner if isinstance(inner, RemoteEngine | TurnsEngine) else inner
        self.main_asks = engine.hosted_by == "main process"
        """Whether the main process asks for all ranks."""
        self.uses_policy = not (remote or self.main_asks)
        """Whether it generates with this rank's own model."""

    def start(self, policy: Policy, seed: int) -> None:
        """Start the engine on the ranks that have one."""
        self.policy = policy
        self.on_hosts(lambda: self.inner.start(policy, seed))

    def sync(self, step: int) -> None:
        """Sync the engine on the ranks that have one."""
        self.on_hosts(lambda: self.inner.sync(step))

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        """Responses to each request, in order."""
        share, found = self.share(call), list[list[Generation]]()
        with self.policy.full_weights() if self.uses_policy else nullcontext():
            if call.requests[share]:
                found = self.inner.generate(self.shared(call, share))
        return self.all(found, call.own)

    def state_dict(self) -> State:
        """The state of each rank's engine, by rank. Every rank must call it."""
        states = self.processes.all_gather(self.inner.state_dict())
        return {str(rank): state for rank, state in enumerate(states)}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned; nothing for a rank that was not there."""
        self.inner.load_state_dict(state.get(str(self.processes.rank), {}))

    def on_hosts(self, call: Callable[[], None]) -> None:
        """Make a call on the ranks that have an engine."""
        with self.policy.full_weights():
            if self.main_asks:
                self.processes.on_main(call)
            else:
                call()

    def share(self, call: GenerationCall) -> slice:
        """Which of `call.requests` this rank answers, of those in `call.part`."""
        start, stop, _ = call.part.indices(len(call.requests))
        if self.main_asks:
            return slice(start, stop if self.processes.is_main else start)
        share = self.processes.share(stop - start)
        return slice(start + share.start, start + share.stop)

    def shared(self, call: GenerationCall, share: slice) -> GenerationCall:
        """The call for these of its requests, with the numbers of their draws."""
        if call.numbers is None:
            return replace(call, part=share)
        first, _, _ = call.part.indices(len(call.requests))
        before = sum(request.n for request in call.requests[first : share.start])
        count = sum(request.n for request in call.requests[share])
        return replace(call, part=share, numbers=call.numbers[before : before + count])

    def all(
        self, own: Sequence[Sequence[Generation]], requests: Sequence[Request]
    ) -> list[list[Generation]]:
        """The responses of every rank, request by request."""
        packed = self.processes.all_gather(pack([answer for group in own for answer in group]))
        flat = iter([answer for tree in packed for answer in unpack(tree)])
        return [[next(flat) for _ in range(request.n)] for request in requests]


class SharedRemote(SharedEngine):
    """The same for engines in processes of their own."""

    inner: RemoteEngine

    def __init__(self, inner: RemoteEngine, processes: Processes) -> None:
        super().__init__(inner, processes)
        self.asked: dict[int, tuple[Sequence[Request], int | None]] = {}
        """Requests, and the number under which this rank's share of them was submitted."""
        self.number = 0

    def submit(self, call: GenerationCall) -> int:
        """Request responses; returns the number to `wait` for."""
        requests, share = call.own, self.share(call)
        number = None
        if call.requests[share]:
            number = self.inner.submit(replace(call, part=share))
        self.number += 1
        self.asked[self.number] = (requests, number)
        return self.number

    def wait(self, number: int) -> list[list[Generation]]:
        """The responses to what was submitted under a number, request by request."""
        requests, own = self.asked.pop(number)
        return self.all(self.inner.wait(own) if own is not None else [], requests)
