"""Several environments in one run: a row's column `environment` says which."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from rlkit.errors import UserError, suggest
from rlkit.interfaces import Environment, EpisodeContext, Observation, PartConfig, Start

COLUMN = "environment"
T = TypeVar("T")


class Mixed(Environment[PartConfig]):
    """Hands each episode to the environment that its row names, as TRL does with a dict of them.

    The column itself is not handed on. Only that environment's tools are shown in the prompt.
    """

    def __init__(self, environments: Mapping[str, Environment[Any]]) -> None:
        super().__init__()
        self.environments = dict(environments)
        self.call_format = common_format({n: e.call_format for n, e in environments.items()})
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}

    def require(self) -> None:
        """What each of them needs."""
        for environment in self.environments.values():
            environment.require()

    @property
    def scores(self) -> bool:
        """Whether any of them does."""
        return any(environment.scores for environment in self.environments.values())

    def open(self, context: EpisodeContext) -> None:
        """Open all of them."""
        super().open(context)
        for environment in self.environments.values():
            environment.open(context)

    def check(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raise UserError for a row that names none of them, and for one that its own refuses."""
        first: dict[str, Mapping[str, Any]] = {}
        for row in rows:
            first.setdefault(self.name_of(row), row)
        for name, row in first.items():
            self.environments[name].check([without_column(row)])

    def notes(self) -> Sequence[str]:
        """The notes of all of them."""
        return [note for each in self.environments.values() for note in each.notes()]

    def name_of(self, row: Mapping[str, Any]) -> str:
        """The environment that a row names. Raises UserError if there is none of that name."""
        known = sorted(self.environments)
        if COLUMN not in row:
            raise UserError(
                f"the run has several environments ({', '.join(known)}), and a row of the task has "
                f"no column '{COLUMN}' that names one"
            )
        name = row[COLUMN]
        if name not in self.environments:
            raise UserError(
                f"a row of the task names the environment '{name}'.{suggest(str(name), known)} "
                f"Known: {', '.join(known)}"
            )
        return str(name)

    def schemas(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Those of the row's environment."""
        return self.environments[self.name_of(row)].schemas(without_column(row))

    def begin(self, starts: Sequence[Start]) -> list[str | None]:
        """Start each episode where it belongs."""
        names = {start.episode: self.name_of(start.row) for start in starts}
        with self._lock:
            self._names |= names
        bare = {
            s.episode: Start(episode=s.episode, row=without_column(s.row), seed=s.seed)
            for s in starts
        }
        return self._shared(
            [start.episode for start in starts],
            lambda environment, mine: environment.begin([bare[episode] for episode in mine]),
        )

    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        """Answer each turn where it belongs."""
        texts = dict(zip(episodes, turns, strict=True))
        return self._shared(
            episodes, lambda environment, mine: environment.step(mine, [texts[e] for e in mine])
        )

    def rewards(self, episodes: Sequence[int]) -> list[float | None]:
        """Each one's own reward."""
        return self._shared(episodes, lambda environment, mine: environment.rewards(mine))

    def states(self, episodes: Sequence[int]) -> list[str | None]:
        """Each one's own state; None where its environment has none."""
        return self._shared(episodes, lambda environment, mine: environment.states(mine))

    def turn_rewards(self, episodes: Sequence[int]) -> list[float | None]:
        """What each one's last turn earned."""
        return self._shared(episodes, lambda environment, mine: environment.turn_rewards(mine))

    def handles(self, episodes: Sequence[int]) -> list[Any]:
        """Each one's own handle."""
        return self._shared(episodes, lambda environment, mine: environment.handles(mine))

    def end(self, episodes: Sequence[int]) -> None:
        """End each where it belongs."""
        with self._lock:
            known = [episode for episode in dict.fromkeys(episodes) if episode in self._names]
        self._shared(known, lambda environment, mine: [environment.end(mine)] * len(mine))
        with self._lock:
            for episode in known:
                del self._names[episode]

    def close(self) -> None:
        """Close all of them."""
        for environment in self.environments.values():
            environment.close()

    def _shared(
        self,
        episodes: Sequence[int],
        work: Callable[[Environment[Any], list[int]], Sequence[T]],
    ) -> list[T]:
        """`work` by each environment on its own episodes; the results in their given order."""
        with self._lock:
            names = {episode: self._names[episode] for episode in episodes}
        out: dict[int, T] = {}
        for name, environment in self.environments.items():
            mine = [episode for episode in episodes if names[episode] == name]
            if mine:
                out |= dict(zip(mine, work(environment, mine), strict=True))
        return [out[episode] for episode in episodes]


def common_format(formats: Mapping[str, str]) -> str:
    """The one format of calls of several environments. Raises UserError if they differ."""
    named = {name: form for name, form in formats.items() if form != "none"}
    if len(set(named.values())) > 1:
        raise UserError(
            "environments of one run write calls in one format, and these have their own: "
            + ", ".join(f"{name} ({form})" for name, form in named.items())
        )
    return next(iter(named.values()), "none")


def without_column(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the column that chose its environment."""
    return {key: value for key, value in row.items() if key != COLUMN}
