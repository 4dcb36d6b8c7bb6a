"""What a step asks for, and how its answers are put together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlkit.batch import Demonstration, Request
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation, GenerationCall, RolloutEngine
from rlkit.rollout.source import OnDemand, StepPlan, once
from tests.rollout.remotes import generation, stream
from tests.steps import Drawing, plan_of
from tests.tiny import make_prompts


class Counting(RolloutEngine):
    """Numbers its responses, 100 more where greedy."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[GenerationCall] = []

    def start(self, policy: Policy, seed: int) -> None:
        raise AssertionError

    def sync(self, step: int) -> None:
        raise AssertionError

    def generate(self, call: GenerationCall) -> list[list[Generation]]:
        self.calls.append(call)
        numbers = iter(range(100 * call.greedy, 1000))
        return [[generation([next(numbers)], 1) for _ in range(r.n)] for r in call.requests]


def ids(found: Sequence[Generation]) -> list[int]:
    return [int(g.response_ids[0]) for g in found]


def asked(policy: Policy) -> list[Request]:
    """2 responses, a demonstration alone, 1 response."""
    first, second, third = make_prompts(policy, ["1", "2", "3"])
    shown = Demonstration(number=1, response_ids=torch.tensor([3]))
    return [
        Request(prompt=first, n=2),
        Request(prompt=second, n=0, demonstrations=(shown,)),
        Request(prompt=third, n=1),
    ]


def test_answers_go_to_their_requests_and_demonstrations_ask_for_none(policy: Policy) -> None:
    engine, requests = Counting(), asked(policy)
    found = OnDemand(engine, greedy=True).completed(plan_of(requests, 7), None, 2)
    assert [completed.request for completed in found] == requests
    assert [ids(completed.own) for completed in found] == [[0, 1], [], [2]]
    assert [c.greedy and int(c.greedy.response_ids[0]) for c in found] == [100, None, 101]
    sampled, greedy = engine.calls
    assert (sampled.stream, greedy.stream) == (("rollout", 7, 2), ("greedy", 7, 2))
    assert greedy.greedy and [r.n for r in greedy.requests] == [1, 1]


def test_greedy_answers_are_generated_only_where_needed(policy: Policy) -> None:
    engine = Counting()
    found = OnDemand(engine, greedy=False).completed(plan_of(asked(policy), 7), None, 0)
    assert len(engine.calls) == 1 and all(c.greedy is None for c in found)


def test_no_more_than_is_missing_is_asked_for(policy: Policy) -> None:
    engine, requests = Counting(), asked(policy)
    source = OnDemand(engine, greedy=True)
    assert len(source.completed(plan_of(requests, 7), 1, 0)) == 1
    assert [r.n for r in engine.calls[0].requests] == [2]
    engine.calls.clear()
    assert source.completed(plan_of(requests[1:2], 7), None, 0)[0].own == ()
    assert not engine.calls, "a demonstration alone"
    assert source.metrics() == source.state_dict() == {}


def test_asking_again_takes_no_prompt_from_an_epoch(policy: Policy) -> None:
    """Three prompts a step and one of them missing: the two others that were planned come next."""
    prompts, plain = stream(policy), [p.prompt_id for p in stream(policy).take(8)]
    source = OnDemand(Counting(), greedy=False)
    asked: list[str] = []
    for step in (1, 2):
        plan = StepPlan(buffer=None, prompts=prompts, groups=3, step=step)
        for attempt, missing in enumerate((None, 1)):
            found = source.completed(plan, missing, attempt)
            asked += [completed.prompt.prompt_id for completed in found]
    assert asked == plain


def test_the_engines_metrics_are_those_of_the_step() -> None:
    class Telling(Counting):
        def metrics(self) -> dict[str, float]:
            return {"rollouts/told": 2.0}

    assert OnDemand(Telling(), greedy=False).metrics() == {"rollouts/told": 2.0}


def test_without_a_buffer_a_step_takes_new_prompts_for_all_its_groups(policy: Policy) -> None:
    prompts = stream(policy)
    plan = StepPlan(buffer=None, prompts=prompts, groups=3, step=1)
    first, second = plan.requests(), plan.requests()
    assert plan.wanted == 3 and [r.n for r in first] == [3, 3, 3]
    assert len({r.prompt.prompt_id for r in (*first, *second)}) == 6


def test_with_a_buffer_it_waits_for_its_fresh_share(policy: Policy) -> None:
    plan = StepPlan(buffer=Drawing(2, 5), prompts=stream(policy), groups=8, step=1)
    assert plan.wanted == 2 and [r.n for r in plan.requests()] == [5, 5]


def test_once_is_one_response_to_each_prompt_from_its_beginning(policy: Policy) -> None:
    (prompt,) = make_prompts(policy, ["1"])
    (found,) = once([Request(prompt=prompt, n=4, prefix=torch.tensor([3]))])
    assert found.prompt is prompt and found.n == 1 and not len(found.prefix)
