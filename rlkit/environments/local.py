"""Environments whose episodes are a few values in the run itself: no code but rlkit's runs."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic

from typing_extensions import TypeVar

from rlkit.interfaces import C, Environment, Observation, Start

S = TypeVar("S")


class Local(Environment[C], Generic[S, C]):
    """Holds what it knows of each episode, `S`, and answers one turn after the other."""

    def __init__(self, config: C | None = None) -> None:
        super().__init__(config)
        self._lock = threading.Lock()
        self._open: dict[int, S] = {}

    @abstractmethod
    def started(self, start: Start) -> tuple[S, str | None]:
        """What it knows of a new episode, and the text that is added to its prompt."""

    @abstractmethod
    def answered(self, state: S, text: str) -> Observation:
        """The answer to a turn; it may change the state."""

    def begin(self, starts: Sequence[Start]) -> list[str | None]:
        """Start each episode."""
        begun = [self.started(start) for start in starts]
        with self._lock:
            self._open |= {s.episode: state for s, (state, _) in zip(starts, begun, strict=True)}
        return [text for _, text in begun]

    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        """Answer each turn."""
        return self.answers(self.held(episodes), turns)

    def answers(self, states: Sequence[S], turns: Sequence[str]) -> list[Observation]:
        """The answers to turns of several episodes, by default one after the other."""
        return [self.answered(state, text) for state, text in zip(states, turns, strict=True)]

    def held(self, episodes: Sequence[int]) -> list[S]:
        """What it knows of each."""
        with self._lock:
            return [self._open[episode] for episode in episodes]

    def end(self, episodes: Sequence[int]) -> None:
        """Forget them."""
        with self._lock:
            for episode in episodes:
                self._open.pop(episode, None)
