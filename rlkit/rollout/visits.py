"""What earlier visits of a prompt generated: kept by prompt, in bounded memory, resumed exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlkit.interfaces import State
from rlkit.rollout.base import Generation
from rlkit.rollout.packing import joined, pack, unpack

UNKNOWN = torch.zeros(0, dtype=torch.float64)
"""No numbers."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A response and the numbers that drew it."""

    response: Generation
    uniform: Tensor = UNKNOWN
    """[T] float64 in [0, 1), each token is the inverse CDF at its own; empty if they are not
    kept."""


class Visits:
    """The last `each` visits of every prompt.

    A visit is the responses of one call. If they have more than `tokens` tokens in all, the prompts
    that were visited longest ago lose theirs.
    """

    def __init__(self, tokens: int, each: int = 1) -> None:
        self.most = tokens
        self.each = each
        self.kept: dict[str, list[list[Stored]]] = {}
        """By prompt id, the prompt visited last at the end; its last visit at the end."""
        self.tokens = 0

    def of(self, prompt_id: str) -> list[Stored]:
        """The responses of all kept visits of a prompt."""
        return [one for visit in self.kept.get(prompt_id, ()) for one in visit]

    def take(self, prompt_id: str) -> list[Stored]:
        """The same, which are then forgotten."""
        found = self.of(prompt_id)
        self.tokens -= _tokens(found)
        self.kept.pop(prompt_id, None)
        return found

    def add(self, prompt_id: str, visit: Sequence[Stored]) -> None:
        """Keep a visit's responses, or those of the others if it does not fit alone."""
        if _tokens(visit) > self.most:
            return
        visits = [*self.kept.pop(prompt_id, ()), list(visit)]
        self.tokens += _tokens(visit)
        leaving = len(visits) - self.each
        self.tokens -= sum(map(_tokens, visits[: max(0, leaving)]))
        if self.each:
            self.kept[prompt_id] = visits[max(0, leaving) :]
        while self.tokens > self.most:
            self.take(next(iter(self.kept)))

    def state_dict(self) -> State:
        """Everything that is kept."""
        flat = [one for visits in self.kept.values() for visit in visits for one in visit]
        return {
            "prompts": list(self.kept),
            "visits": [[len(visit) for visit in visits] for visits in self.kept.values()],
            "responses": pack([one.response for one in flat]),
            "uniforms": joined([one.uniform for one in flat], torch.float64),
            "drawn": [len(one.uniform) for one in flat],
        }

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned; nothing is kept after an empty one."""
        self.kept, self.tokens = {}, 0
        if not state:
            return
        uniforms = state["uniforms"].split(state["drawn"])
        responses = unpack(state["responses"])
        flat = iter([Stored(r, u.clone()) for r, u in zip(responses, uniforms, strict=True)])
        for prompt_id, sizes in zip(state["prompts"], state["visits"], strict=True):
            self.kept[prompt_id] = [[next(flat) for _ in range(size)] for size in sizes]
        self.tokens = sum(_tokens(self.of(prompt_id)) for prompt_id in self.kept)


def _tokens(some: Sequence[Stored]) -> int:
    return sum(len(one.response.response_ids) for one in some)
