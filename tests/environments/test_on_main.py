from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlkit.distributed.processes import Processes
from rlkit.environments.on_main import OnMain
from rlkit.interfaces import EpisodeContext
from tests.environments.asking import start
from tests.rollout.echo import Echo, EchoConfig


class Rank(Processes):
    """One of two; what the main process found is told to the other."""

    world_size = 2

    def __init__(self, rank: int, told: list[Any]) -> None:
        self.rank, self.told = rank, told

    def on_main(self, call: Callable[[], Any]) -> Any:
        if self.is_main:
            self.told.append(call())
        return self.told[-1]


class Telling(Echo):
    """Says the state of an episode, and what its turn earned."""

    def states(self, episodes: Sequence[int]) -> list[str | None]:
        return [str(self.starts[episode]) for episode in episodes]

    def turn_rewards(self, episodes: Sequence[int]) -> list[float | None]:
        return [float(len(self.starts)) for _ in episodes]


def test_the_main_process_plays_and_every_rank_is_told() -> None:
    inner, idle = Telling(EchoConfig(greets=True)), Telling(EchoConfig(greets=True))
    told: list[Any] = []
    main, other = OnMain(inner, Rank(0, told)), OnMain(idle, Rank(1, told))
    for environment in (main, other):
        environment.open(EpisodeContext(seed=3))
        assert environment.scores and environment.call_format == "none"
        assert environment.schemas({}) == []
    starts = [start(1, answer="7"), start(2, answer="8")]
    for ask in (
        lambda e: e.begin(starts),
        lambda e: e.again([1, 2]),
        lambda e: e.step([1, 2], ["12", "3"]),
        lambda e: e.rewards([1, 2]),
        lambda e: e.states([1, 2]),
        lambda e: e.turn_rewards([1, 2]),
    ):
        assert ask(main) == ask(other)
    assert told[0] == ["7", "8"] and told[1] == [False, False] and told[3] == [0.25, 0.25]
    assert None not in told[4] and told[5] == [2.0, 2.0]
    for environment in (main, other):
        environment.end([1, 2])
        environment.close()
    assert not idle.starts and sorted(inner.starts) == [1, 2]


def test_what_the_run_notes_is_what_its_own_environment_was_given() -> None:
    noted: list[int] = []
    inner = Echo()
    inner.context = EpisodeContext(note=noted.append, noted={4})
    environment = OnMain(inner, Rank(0, []))
    environment.open(EpisodeContext(seed=9))
    assert inner.context.seed == 9 and environment.again([4, 5]) == [True, False]
    inner.context.note(6)
    assert noted == [6]
