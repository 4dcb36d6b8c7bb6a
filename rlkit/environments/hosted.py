"""Environments whose episodes live in processes of their own: users' code, and that of models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field
from typing_extensions import TypeVar

from rlkit.environments.answers import Answers, answered, read_answers
from rlkit.environments.channel import Channel, Host, Late, Lost
from rlkit.environments.handle import Handle, as_json, as_number, as_state
from rlkit.errors import UserError
from rlkit.interfaces import Environment, Observation, PartConfig, Start
from rlkit.ops import stream_seed

X = TypeVar("X")
Y = TypeVar("Y")


class HostedConfig(PartConfig):
    """Settings of an environment that runs in processes of its own."""

    time_limit: Annotated[float, Field(gt=0)] = 30.0
    """Seconds that a call may take; its answer then says so. A call that Python cannot interrupt is
    killed some seconds later, which ends an episode of an environment that has state."""
    turn_limit: Annotated[float, Field(gt=0)] | None = None
    """Seconds that the calls of a turn may take together, or one of them if `time_limit` is longer;
    the calls behind them are not run, and their answers say so. null = no limit."""
    start_limit: Annotated[float, Field(gt=0)] = 120.0
    """Seconds that the start of an episode may take before the run stops."""
    concurrency: Annotated[int, Field(ge=1)] = 32
    """Most episodes that work at the same time, each in its own process."""
    memory_mb: Annotated[int, Field(ge=16)] | None = None
    """Memory that an episode may take on top of what the imports took; null = no limit."""


@dataclass
class Open:
    """An episode that has begun."""

    start: Start
    channel: Channel | None = None
    """None = no process is needed yet, or it was lost."""
    lost: bool = False


HC = TypeVar("HC", bound=HostedConfig, default=HostedConfig)


class Hosted(Environment[HC]):
    """Runs a class's public methods, or functions, as tools, one process per episode.

    A turn without a call ends the episode; so does a class whose property `done` is true.
    """

    Config: ClassVar[type[PartConfig]] = HostedConfig
    factory: ClassVar[str | None] = None
    """Where the class is, `module:name` or `file.py:name`; None = tools without state."""
    tools: ClassVar[tuple[str, ...]] = ()
    """Where the functions are."""
    functions: ClassVar[tuple[dict[str, Any], ...]] = ()
    """The JSON schemas of all tools."""
    once: ClassVar[frozenset[str]] = frozenset()
    """The tools that say `idempotent = False`: a call must not be made twice."""
    columns: ClassVar[frozenset[str] | None] = None
    """The columns that `reset` takes; None = all of them."""
    needed: ClassVar[frozenset[str]] = frozenset()
    """Those of them without a default."""
    own_reward: ClassVar[bool] = False
    """Whether the class has `get_reward`."""
    own_state: ClassVar[bool] = False
    """Whether the class has a property `turn_state`, a value that tells states apart."""
    own_turn_reward: ClassVar[bool] = False
    """Whether it has a property `turn_reward`, what its last turn earned."""
    restarts: ClassVar[bool] = False
    """Whether an object whose process was killed may be made anew, without its state."""
    trusted: ClassVar[bool] = True
    """Whether its processes get the run's environment variables."""

    def __init__(self, config: HC | None = None) -> None:
        super().__init__(config)
        spec = {
            "factory": self.factory,
            "settings": self.settings(),
            "tools": list(self.tools),
            "preload": list(self.preload()),
            "memory_mb": self.config.memory_mb,
        }
        self._host = Host(spec, trusted=self.trusted)
        self._threads = ThreadPoolExecutor(self.config.concurrency, "environment")
        self._lock = threading.Lock()
        self._open: dict[int, Open] = {}

    @property
    def scores(self) -> bool:
        """Whether the class has `get_reward`."""
        return self.own_reward

    def settings(self) -> dict[str, Any]:
        """What the class is made with."""
        return {}

    def preload(self) -> Sequence[str]:
        """Modules that are imported once for all episodes."""
        return ()

    def check(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raise UserError if `reset` needs a column that the rows have not."""
        for row in rows[:1]:
            missing = sorted(self.needed - row.keys())
            if missing:
                raise UserError(
                    f"{self.title}: reset needs the argument '{missing[0]}', which is no column of "
                    f"the task; there are: {', '.join(sorted(row))}"
                )

    def schemas(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The schemas of all tools, whatever the row."""
        return list(self.functions)

    def begin(self, starts: Sequence[Start]) -> list[str | None]:
        """Call `reset` of each. Raises UserError if it raises, or returns anything but a text."""
        return self._each(self._begin, starts)

    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        """Read the calls of each turn and run them."""
        return self._each(self._step, list(zip(episodes, turns, strict=True)))

    def rewards(self, episodes: Sequence[int]) -> list[float | None]:
        """What `get_reward` returns; None for an episode whose process was lost."""
        if not self.own_reward:
            return [None] * len(episodes)
        return self._each(self._reward, episodes)

    def states(self, episodes: Sequence[int]) -> list[str | None]:
        """The property `turn_state` of each, as text; None without one, or if it was lost."""
        if not self.own_state:
            return [None] * len(episodes)
        return self._each(lambda episode: as_state(self._property(episode, "turn_state")), episodes)

    def turn_rewards(self, episodes: Sequence[int]) -> list[float | None]:
        """The property `turn_reward` of each; None without one, or if it was lost."""
        if not self.own_turn_reward:
            return [None] * len(episodes)
        what = f"{self.title}: turn_reward"
        return self._each(lambda e: as_number(self._property(e, "turn_reward"), what), episodes)

    def handles(self, episodes: Sequence[int]) -> list[Any]:
        """Objects whose attributes are those of the episodes' environments, as JSON values."""
        return [Handle(self, episode) for episode in episodes]

    def end(self, episodes: Sequence[int]) -> None:
        """Kill the episodes' processes."""
        for episode in episodes:
            with self._lock:
                held = self._open.pop(episode, None)
            if held is not None and held.channel is not None:
                held.channel.close()

    def close(self) -> None:
        """Kill all processes."""
        self.end(list(self._open))
        self._host.close()

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"environment '{type(self).__name__}'" if self.factory else "tools"

    def _each(self, work: Callable[[X], Y], items: Sequence[X]) -> list[Y]:
        """`work` on each item, at the same time, in order."""
        return list(self._threads.map(work, items))

    def _begin(self, start: Start) -> str | None:
        self.end([start.episode])
        held = Open(start)
        with self._lock:
            self._open[start.episode] = held
        return None if self.factory is None else self._reset(held)

    def _reset(self, held: Open) -> str | None:
        """Start the episode's process."""
        start, limit = held.start, self.config.start_limit
        row = self._arguments(start.row) if self.factory else {}
        later = stream_seed(self.context.seed, "environment", start.episode)
        held.channel = self._host.episode()
        try:
            reply = held.channel.ask(
                "reset", 2 * limit, row=row, seed=start.seed, later=later, limit=limit
            )
        except Late:
            reply = {"error": f"it took more than {limit:g} s (start_limit)"}
        except Lost:
            reply = {"error": "its process died"}
        if not isinstance(reply.get("value"), str | None):
            reply = {"error": "its process wrote no text"}
        if "error" in reply:
            held.channel.close()
            raise UserError(f"{self.title} does not start: {reply['error']}")
        text: str | None = reply["value"]
        return text

    def _arguments(self, row: Mapping[str, Any]) -> dict[str, Any]:
        taken = {k: v for k, v in row.items() if self.columns is None or k in self.columns}
        return {
            key: as_json(value, f"{self.title}: column '{key}'") for key, value in taken.items()
        }

    def _step(self, item: tuple[int, str]) -> Observation:
        episode, text = item
        said = self.context.parse(text, self.functions)
        with self._lock:
            held = self._open[episode]
        return answered(said, self.context.calls_per_turn, lambda calls: self._call(held, calls))

    def _call(self, held: Open, calls: Sequence[Mapping[str, Any]]) -> Answers:
        limit = self.config.time_limit
        if held.lost:
            return Answers(lost=True)
        if held.channel is None:
            self._reset(held)
        channel = held.channel
        assert channel is not None
        if any(call["name"] in self.once for call in calls):
            self.context.note(held.start.episode)
        most = max(self.config.turn_limit or (len(calls) + 1) * limit, limit)
        seconds = min(most, len(calls) * limit)
        try:
            reply = channel.ask("call", seconds + 1, calls=calls, limit=limit, most=most)
            if "error" in reply and self.trusted:
                raise UserError(f"{self.title}: {reply['error']}")
            answers = read_answers(reply.get("value"), len(calls))
            if answers is None:
                channel.close()
                raise Lost
            return answers
        except (Late, Lost) as error:
            held.channel = None
            held.lost = self.factory is not None and not self.restarts
            late = isinstance(error, Late)
            why = f"no result after {seconds:g} s" if late else "the process of the tool died"
            why += "; its state is lost" if self.factory else ""
            text = {"text": str({"error": why}), "failed": True, "late": late}
            return Answers(texts=[text] * len(calls), lost=held.lost, died=not late)

    def _reward(self, episode: int) -> float | None:
        value = self.asked(episode, "reward", "get_reward")
        return None if value is None else float(value)

    def _property(self, episode: int, name: str) -> Any:
        """A property of an episode's object; None if it was lost."""
        try:
            reply = self.asked(episode, "attribute", f"`{name}`", name=name, arguments=None)
        except UserError:
            if self._open[episode].lost:  # the next turn says so, and ends the episode
                return None
            raise
        return None if reply is None else reply.get("value")

    def asked(self, episode: int, do: str, what: str, **arguments: Any) -> Any:
        """The reply to a question about an episode's object; None if it was lost before."""
        with self._lock:
            held = self._open.get(episode)
        if held is None or held.channel is None:
            return None
        limit = self.config.time_limit
        try:
            reply = held.channel.ask(do, 2 * limit, limit=limit, **arguments)
        except (Late, Lost) as error:
            held.channel, held.lost = None, True
            if not self.trusted:  # the code of a model may end its process whenever it is asked
                return None
            reply = {"error": "it took too long" if isinstance(error, Late) else "its process died"}
        if "error" in reply:
            raise UserError(f"{self.title}: {what} failed: {reply['error']}")
        return reply["value"]
