"""An environment that one of several ranks plays for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlkit.distributed.processes import Processes
from rlkit.interfaces import Environment, EpisodeContext, Observation, PartConfig, Start


class OnMain(Environment[PartConfig]):
    """Lets the main process play the episodes, and tells every rank what it says.

    For episodes that outlive a step: which rank samples their next turn changes, and the process
    that they live in cannot.
    """

    def __init__(self, inner: Environment[Any], processes: Processes) -> None:
        super().__init__()
        self.inner, self.processes = inner, processes
        self.call_format = inner.call_format

    def require(self) -> None:
        """What the environment needs."""
        self.inner.require()

    @property
    def scores(self) -> bool:
        """Whether the environment does."""
        return self.inner.scores

    def open(self, context: EpisodeContext) -> None:
        """Open it on every rank; what it notes is its own."""
        known = self.inner.context
        self.inner.open(replace(context, note=known.note, noted=known.noted))

    def schemas(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The environment's."""
        return self.inner.schemas(row)

    def begin(self, starts: Sequence[Start]) -> list[str | None]:
        """Start episodes in the main process."""
        return self.processes.on_main(lambda: self.inner.begin(starts))

    def again(self, episodes: Sequence[int]) -> list[bool]:
        """What the main process has noted."""
        return self.processes.on_main(lambda: self.inner.again(episodes))

    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        """Answer turns in the main process."""
        return self.processes.on_main(lambda: self.inner.step(episodes, turns))

    def rewards(self, episodes: Sequence[int]) -> list[float | None]:
        """Those that the main process finds."""
        return self.processes.on_main(lambda: self.inner.rewards(episodes))

    def states(self, episodes: Sequence[int]) -> list[str | None]:
        """Those that the main process finds."""
        return self.processes.on_main(lambda: self.inner.states(episodes))

    def turn_rewards(self, episodes: Sequence[int]) -> list[float | None]:
        """Those that the main process finds."""
        return self.processes.on_main(lambda: self.inner.turn_rewards(episodes))

    def end(self, episodes: Sequence[int]) -> None:
        """Forget episodes; the other ranks know of none."""
        self.inner.end(episodes)

    def close(self) -> None:
        """Close it on every rank."""
        self.inner.close()
