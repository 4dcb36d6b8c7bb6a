"""Where a step's responses come from: here an engine that is asked when the step needs them.

`rlkit.rollout.ahead` asks some steps earlier; `rlkit.rollout.partial` lets responses continue in
the next step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from rlkit.batch import Prompt, Request
from rlkit.interfaces import ReplayBuffer, State
from rlkit.rollout.base import Generation, GenerationCall, RolloutEngine
from rlkit.tasks.stream import PromptStream


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """What a step generates."""

    buffer: ReplayBuffer[Any] | None
    """Plans the step's requests; None = the step replays nothing, all its prompts are new."""
    prompts: PromptStream
    groups: int
    """Groups the step trains."""
    step: int

    @property
    def wanted(self) -> int:
        """New groups the step waits for."""
        return self.groups if self.buffer is None else self.buffer.fresh_share(self.groups)

    def requests(self) -> Sequence[Request]:
        """The step's requests; each call plans as many again."""
        if self.buffer is not None:
            return self.buffer.plan(self.groups, self.step, self.prompts)
        n = self.prompts.num_generations
        return [Request(prompt=prompt, n=n) for prompt in self.prompts.take(self.groups)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A request and the policy's responses to it."""

    request: Request
    own: Sequence[Generation]
    """`request.n` of them."""
    greedy: Generation | None = None
    """The greedy response, if the advantage needs it."""

    @property
    def prompt(self) -> Prompt:
        """The prompt of the request."""
        return self.request.prompt


class Source(ABC):
    """Completes requests."""

    dropped: Sequence[Completed] = ()
    """What was generated and is not trained on: the groups dropped in this step."""

    @property
    def wasted(self) -> tuple[int, int]:
        """Responses and tokens of the dropped groups."""
        own = [one for group in self.dropped for one in group.own]
        return len(own), sum(one.own_tokens for one in own)

    def begin(self, plan: StepPlan) -> None:  # noqa: B027
        """Called when a step begins."""

    @abstractmethod
    def completed(self, plan: StepPlan, missing: int | None, attempt: int) -> list[Completed]:
        """At most `missing` completed requests of a step; None = the whole plan's.

        `attempt` counts from 0 within a step.
        """

    def metrics(self) -> dict[str, float]:
        """Metrics of the step."""
        return {}

    def state_dict(self) -> State:
        """Responses that a later step will use."""
        return {}

    def load_state_dict(self, state: State, prompts: PromptStream) -> None:  # noqa: B027
        """Restore what `state_dict` returned."""


class OnDemand(Source):
    """Asks the engine when the step needs the responses."""

    def __init__(self, engine: RolloutEngine[Any], *, greedy: bool) -> None:
        self.engine = engine
        self.greedy = greedy

    def completed(self, plan: StepPlan, missing: int | None, attempt: int) -> list[Completed]:
        """The engine's responses; requests for demonstrations alone have none."""
        requests = list(plan.requests())
        if missing is not None:
            plan.prompts.give_back([request.prompt for request in requests[missing:]])
            requests = requests[:missing]
        asked = [request for request in requests if request.n > 0]
        own = iter(
            self.engine.generate(GenerationCall(asked, ("rollout", plan.step, attempt)))
            if asked
            else ()
        )
        greedy: Iterator[Generation | None] = (
            iter(greedy_responses(self.engine, asked, plan.step, attempt))
            if self.greedy
            else repeat(None)
        )
        return [
            Completed(request=request, own=next(own), greedy=next(greedy))
            if request.n > 0
            else Completed(request=request, own=())
            for request in requests
        ]

    def metrics(self) -> dict[str, float]:
        """Those of the engine."""
        return self.engine.metrics()


def greedy_responses(
    engine: RolloutEngine[Any], requests: Sequence[Request], step: int, attempt: int
) -> list[Generation]:
    """The greedy response to each prompt of a step."""
    if not requests:
        return []
    call = GenerationCall(once(requests), ("greedy", step, attempt), greedy=True)
    return [response for (response,) in engine.generate(call)]


def once(requests: Sequence[Request]) -> list[Request]:
    """One response to each prompt."""
    return [Request(prompt=request.prompt, n=1) for request in requests]
