"""What a response in several turns has besides its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from rlkit.batch import Messages
from rlkit.interfaces import PROMPT_IDS, Message, State, turn_extras
from rlkit.interfaces.turns import TURNS as TURNS

OBSERVED = "observation_tokens"
"""That of the tokens which are not the policy's own."""
RESTARTED = "restarted"
"""That of how often it was begun again, because a call of it must not be made twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """An episode that has ended."""

    loss_mask: Tensor
    """[T] bool: true for the tokens that the policy sampled, false for what it was shown."""
    asked: str | Messages
    """The prompt, with the text that the environment added to it."""
    prompt_ids: Tensor | None
    """[P] int64, its tokens; None = those of the task's prompt, to which nothing was added."""
    messages: Sequence[Message]
    """The response as a chat: the policy's turns, and what came back for each but the last."""
    reward: float | None
    """The environment's own; None = it has none."""
    counts: Mapping[str, int]
    """Events of all turns by name: `turns`, `observation_tokens` and those of the interface."""
    turn: Tensor | None = None
    """[T] int64: the number of the policy's turn for each token, 0 for what it was shown; None = of
    a run before turns were kept."""
    states: Sequence[int] = ()
    """The number of the state in which each turn was taken."""
    earned: Sequence[float] | None = None
    """What each turn earned; None = the environment gives no rewards per turn."""
    handle: Any = field(default=None, compare=False)
    """What a reward reads of the environment itself; None after a way between processes."""

    @property
    def extras(self) -> dict[str, Tensor | float]:
        """What a sample keeps of it: counts, turns, and its own prompt if it has one."""
        found: dict[str, Tensor | float] = {k: float(v) for k, v in self.counts.items()}
        if self.turn is not None:
            earned = None if self.earned is None else list(self.earned)
            found |= turn_extras(self.turn, list(self.states), earned)
        return found if self.prompt_ids is None else {**found, PROMPT_IDS: self.prompt_ids}

    def state(self) -> State:
        """The same as a tree for checkpoints and for other processes, without the handle."""
        return {
            "loss_mask": self.loss_mask,
            "asked": self.asked,
            "prompt_ids": self.prompt_ids,
            "messages": [dict(message) for message in self.messages],
            "reward": self.reward,
            "counts": dict(self.counts),
            "turn": self.turn,
            "states": list(self.states),
            "earned": None if self.earned is None else list(self.earned),
        }

    @staticmethod
    def from_state(state: State) -> Played:
        """Restore what `state` returned."""
        fields: State = {**state, "messages": tuple(state["messages"])}
        return Played(**fields)
