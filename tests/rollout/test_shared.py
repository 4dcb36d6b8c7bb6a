"""Ranks that share the requests of one engine each, or of one engine for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlkit.batch import Request
from rlkit.distributed.processes import Processes
from rlkit.interfaces import State
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation, GenerationCall, RolloutEngine
from rlkit.rollout.packing import pack
from rlkit.rollout.shared import SharedEngine, SharedRemote
from tests.rollout.remotes import generation
from tests.tiny import make_prompts


class Rank(Processes):
    """One of two; the other's answers come from outside."""

    world_size = 2

    def __init__(self, rank: int, other: list[Generation]) -> None:
        self.rank, self.other = rank, other
        self.on_main_calls = 0

    def all_gather(self, value: Any) -> list[Any]:
        both = [value, pack(self.other)]
        return both if self.is_main else both[::-1]

    def on_main(self, call: Callable[[], Any]) -> Any:
        self.on_main_calls += 1
        return call() if self.is_main else None


class Naming(RolloutEngine):
    """Answers with the place of the request among all."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[object] = []
        self.most = 0

    def state_dict(self) -> State:
        return {"most": self.most}

    def load_state_dict(self, state: State) -> None:
        self.most = state.get("most", -1)

    def start(self, policy: Policy, seed: int) -> None:
        self.log.append(("start", seed))

    def sync(self, step: int) -> None:
        self.log.append(("sync", step))

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        self.log.append(call.part)
        places = range(len(call.requests))[call.part]
        return [
            [generation([place], 1) for _ in range(r.n)]
            for place, r in zip(places, call.own, strict=True)
        ]

    def close(self) -> None:
        self.log.append("close")


class Outside(Naming):
    """One engine for all, elsewhere."""

    hosted_by = "main process"


def answers(*places: int) -> list[Generation]:
    return [generation([place], 1) for place in places]


def ids(found: list[list[Generation]]) -> list[list[int]]:
    return [[int(g.response_ids[0]) for g in group] for group in found]


def asked(policy: Policy) -> list[Request]:
    return [
        Request(prompt=p, n=n)
        for p, n in zip(make_prompts(policy, ["1", "2", "3"]), (2, 1, 2), strict=True)
    ]


@pytest.mark.parametrize(
    ("rank", "share", "others"), [(0, slice(0, 1), (1, 2, 2)), (1, slice(1, 3), (0, 0))]
)
def test_every_rank_answers_its_share_and_gets_all(
    policy: Policy, rank: int, share: slice, others: tuple[int, ...]
) -> None:
    inner = Naming()
    engine = SharedEngine(inner, Rank(rank, answers(*others)))
    engine.start(policy, 5)
    engine.sync(2)
    found = engine.generate(GenerationCall(asked(policy), ("t", 1, 0)))
    assert ids(found) == [[0, 0], [1], [2, 2]]
    assert inner.log == [("start", 5), ("sync", 2), share]
    engine.close()
    assert inner.log[-1] == "close"


@pytest.mark.parametrize(("rank", "numbers"), [(0, [7, 7]), (1, [3, 2, 9])])
def test_a_share_keeps_the_numbers_of_its_draws(
    policy: Policy, rank: int, numbers: list[int]
) -> None:
    """Of three requests with 2, 1 and 2 responses, the second rank answers the last two."""
    engine = SharedEngine(Naming(), Rank(rank, []))
    engine.start(policy, 5)
    call = GenerationCall(asked(policy), ("t", 1, 0), numbers=[7, 7, 3, 2, 9])
    found = engine.shared(call, engine.share(call))
    assert found.numbers == numbers and sum(request.n for request in found.own) == len(numbers)
    part = GenerationCall(asked(policy), ("t", 1, 0), part=slice(1, 3), numbers=[3, 2, 9])
    assert engine.shared(part, slice(2, 3)).numbers == [2, 9]


@pytest.mark.parametrize(
    ("rank", "log", "others"),
    [(0, [("start", 5), slice(0, 3)], ()), (1, [], (0, 0, 1, 2, 2))],
)
def test_the_main_process_alone_asks_an_engine_that_is_elsewhere(
    policy: Policy, rank: int, log: list[object], others: tuple[int, ...]
) -> None:
    inner, processes = Outside(), Rank(rank, answers(*others))
    engine = SharedEngine(inner, processes)
    engine.start(policy, 5)
    found = engine.generate(GenerationCall(asked(policy), ("t", 1, 0)))
    assert ids(found) == [[0, 0], [1], [2, 2]]
    assert inner.log == log and processes.on_main_calls == 1


class Queued(Naming):
    """Answers what was submitted under a number, later."""

    def __init__(self) -> None:
        super().__init__()
        self.submitted: list[GenerationCall] = []

    def submit(self, call: GenerationCall) -> int:
        self.submitted.append(call)
        return 10 + len(self.submitted)

    def wait(self, number: int) -> list[list[Generation]]:
        return super().generate(self.submitted[number - 11])


def test_shares_are_submitted_and_waited_for_under_one_number(policy: Policy) -> None:
    inner = Queued()
    engine = SharedRemote(inner, Rank(0, answers(1, 2, 2)))  # type: ignore[arg-type]
    engine.policy = policy
    number = engine.submit(GenerationCall(asked(policy), ("t", 1, 0)))
    none = engine.submit(GenerationCall(asked(policy)[:1], ("t", 2, 0)))
    assert number != none and [call.part for call in inner.submitted] == [slice(0, 1)]
    assert ids(engine.wait(number)) == [[0, 0], [1], [2, 2]]
    engine.processes = Rank(0, answers(0, 0))
    assert ids(engine.wait(none)) == [[0, 0]], "all of it was the other's share"
    assert not engine.asked


def test_each_rank_keeps_the_state_of_its_own_engine() -> None:
    class Two(Processes):
        world_size = 2

        def __init__(self, rank: int) -> None:
            self.rank = rank

        def all_gather(self, value: Any) -> list[Any]:
            return [value, {"most": 7}]

    state = SharedEngine(Naming(), Two(0)).state_dict()
    assert state == {"0": {"most": 0}, "1": {"most": 7}}
    for rank, most in ((0, 0), (1, 7), (2, -1)):
        engine = Naming()
        SharedEngine(engine, Two(rank)).load_state_dict(state)
        assert engine.most == most, "a rank that was not there begins anew"


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_share_a_part_of_the_requests_without_changing_their_places(
    policy: Policy, rank: int
) -> None:
    """Draws go by a request's place among all, so a part must not be numbered anew."""
    inner = Naming()
    engine = SharedEngine(inner, Rank(rank, [answers(2, 2), answers(1)][rank]))
    engine.start(policy, 5)
    found = engine.generate(GenerationCall(asked(policy), ("eval", 1, 0), part=slice(1, 3)))
    assert ids(found) == [[1], [2, 2]]
    assert inner.log[-1] == [slice(1, 2), slice(2, 3)][rank]


def test_the_numbers_of_the_draws_are_those_of_a_ranks_own_requests(policy: Policy) -> None:
    class Numbered(Naming):
        def generate(self, call: GenerationCall) -> list[list[Generation]]:
            self.log.append(call.numbers)
            return super().generate(call)

    seen = []
    for rank, others in ((0, (1, 2, 2)), (1, (0, 0))):
        inner = Numbered()
        engine = SharedEngine(inner, Rank(rank, answers(*others)))
        engine.start(policy, seed=0)
        call = GenerationCall(asked(policy), ("t", 1, 0), numbers=[7, 3, 9, 5, 4])
        assert ids(engine.generate(call)) == [[0, 0], [1], [2, 2]]
        seen.append(inner.log[1])
    assert seen == [[7, 3], [9, 5, 4]]
