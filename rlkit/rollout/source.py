"""Where the answers to a step's requests come from: an engine that is asked when they are needed.

`rlkit.rollout.ahead` has the other way, answers that were asked for earlier.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.batch import Request
from rlkit.interfaces import State
from rlkit.rollout.base import Generation, RolloutEngine
from rlkit.tasks.prompts import PromptStream

Plan = Callable[[], Sequence[Request]]
"""What a step generates; each call asks for as much again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A request and the policy's responses to it."""

    request: Request
    own: Sequence[Generation]
    """`request.n` of them."""
    greedy: Generation | None = None
    """Where the advantage needs the greedy response."""


class Supply(ABC):
    """Answers requests."""

    def begin(self, plan: Plan, wanted: int, step: int) -> None:  # noqa: B027
        """Called when a step begins that wants so many new groups."""

    @abstractmethod
    def answers(self, plan: Plan, missing: int | None, step: int, attempt: int) -> list[Answered]:
        """At most `missing` answered requests of a plan; None = a whole plan's.

        `attempt` counts from 0 within a step.
        """

    def metrics(self) -> dict[str, float]:
        """Figures of the step."""
        return {}

    def state_dict(self) -> State:
        """Answers that a later step will use."""
        return {}

    def load_state_dict(self, state: State, prompts: PromptStream) -> None:  # noqa: B027
        """Take back what `state_dict` gave."""


class OnDemand(Supply):
    """Asks the engine when the step needs the answers."""

    def __init__(self, engine: RolloutEngine[Any], *, greedy: bool) -> None:
        self.engine = engine
        self.greedy = greedy

    def answers(self, plan: Plan, missing: int | None, step: int, attempt: int) -> list[Answered]:
        """The engine's answers; requests of demonstrations alone have none."""
        requests = plan()[:missing]
        asked = [request for request in requests if request.n > 0]
        own = iter(self.engine.generate(asked, ("rollout", step, attempt)) if asked else ())
        greedy = iter(self._greedy(asked, step, attempt) if asked else ())
        return [
            Answered(request=request, own=next(own), greedy=next(greedy))
            if request.n > 0
            else Answered(request=request, own=())
            for request in requests
        ]

    def _greedy(self, asked: Sequence[Request], step: int, attempt: int) -> list[Generation | None]:
        """The greedy response to each prompt, where it is needed."""
        if not self.greedy:
            return [None] * len(asked)
        found = self.engine.generate(once(asked), ("greedy", step, attempt), greedy=True)
        return [response for (response,) in found]


def once(requests: Sequence[Request]) -> list[Request]:
    """One response to each prompt."""
    return [Request(prompt=request.prompt, n=1) for request in requests]
