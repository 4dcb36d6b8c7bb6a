"""The interface of an environment: what answers the policy, turn by turn.

An episode is one response in several turns. The loop samples a turn, hands its text to the
environment, appends the messages that come back and samples the next, until either says stop.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rlkit.batch import Messages
from rlkit.errors import UserError
from rlkit.interfaces.part import C, Part

Message = Mapping[str, Any]
"""A chat message as templates read it: role, content, and tool_calls, name or tool_call_id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the policy wrote."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None
    """The id that its format gives it, which the answer then repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A turn of the policy, read."""

    content: str
    """Its text, without the calls and the special tokens."""
    calls: Sequence[ToolCall] = ()
    errors: Sequence[str] = ()
    """What looks like a call and cannot be read, a line each: what the policy is told."""
    reasoning: str | None = None
    """What its format marks as thoughts, if it does."""

    @property
    def message(self) -> dict[str, Any]:
        """The turn as an assistant's message, as in TRL."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.reasoning is not None:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = [
                {
                    "type": "function",
                    "function": {"name": call.name, "arguments": dict(call.arguments)},
                }
                | ({} if call.id is None else {"id": call.id})
                for call in self.calls
            ]
        return message


CallParser = Callable[[str, Sequence[Mapping[str, Any]]], Said]
"""Reads a turn's text, special tokens included, given the schemas of the tools."""


def no_parser(text: str, schemas: Sequence[Mapping[str, Any]]) -> Said:
    """The parser of an environment that no run has opened."""
    raise UserError("calls are read when a run opens the environment, and no run has")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeContext:
    """What an environment is told about the run before it begins: `open(context)`."""

    seed: int = 0
    """The run's seed."""
    parse: CallParser = no_parser
    """Reads the policy's turns, in the format that its chat template uses."""
    calls_per_turn: int | None = None
    """Most calls of a turn that are run, the others are answered by a line that says so; None = no
    limit."""
    note: Callable[[int], None] = lambda episode: None
    """To be told of an episode before it makes a call that must not be made twice."""
    noted: Container[int] = ()
    """The episodes of which it was told before the run was killed, and that begin anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The start of an episode."""

    episode: int
    """Its id: the same after a resume, another one for each response."""
    row: Mapping[str, Any]
    """The problem: the task's columns, `prompt` among them."""
    seed: int
    """What draws at the start derive from: equal among the responses to a prompt of a step, which
    thus start alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What comes back for a turn."""

    said: Message
    """The policy's turn as a message: what rewards see."""
    messages: Sequence[Message] = ()
    """What the policy sees next, of the roles tool and user; empty if the episode is done."""
    done: bool = False
    """Whether the episode ends here."""
    finish_reason: str = "stop"
    """Why, if it is done: "stop", or "tool_error" if the environment was lost."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Events of this turn by name, see `COUNTS`; those that are missing are 0."""


COUNTS = ("calls", "failed_calls", "unparsable", "void_turns", "timeouts", "lost")
"""Calls that were run or refused; those of them that raised, ran out of time, name no tool or break
a limit; calls that cannot be read; turns that say and call nothing; calls out of time; environments
whose process died."""


INVALID_CALL = "invalid_call"
"""The name of a tool's message in place of the answer to a call that could not be read."""


class Environment(Part[C]):
    """Answers the policy's turns: runs the tools it calls, or says what it thinks of an answer.

    An episode begins with `begin`, goes on with `step`, may be asked for its reward, and ends with
    `end`. Several threads may call at once, each for other episodes. An answer depends on the
    episode's start, its turns so far and the run's seed, not on what other episodes do.
    """

    call_format: str = "auto"
    """The parser that its calls need; auto = what the chat template uses."""
    embedded: ClassVar[bool] = False
    """Whether the embedded model can write its calls."""
    context: EpisodeContext = EpisodeContext()
    """The run it belongs to, see `open`."""

    @property
    def scores(self) -> bool:
        """Whether `rewards` says anything: a run then needs no other reward."""
        return False

    def open(self, context: EpisodeContext) -> None:
        """Called once, before the first episode."""
        self.context = context

    def check(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raise UserError if it cannot take these problems; called before the model is loaded."""

    def notes(self) -> Sequence[str]:
        """What the user should know when the run starts, a line each."""
        return ()

    def schemas(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The JSON schemas of the tools that the chat template is given for this problem."""
        return []

    @abstractmethod
    def begin(self, starts: Sequence[Start]) -> list[str | None]:
        """Start episodes; a text is added to the end of the prompt's last message, as in TRL.

        Raises UserError if the user's own code fails.
        """

    def again(self, episodes: Sequence[int]) -> list[bool]:
        """Whether each begins anew after a kill, having made a call that must not be made twice."""
        return [episode in self.context.noted for episode in episodes]

    @abstractmethod
    def step(self, episodes: Sequence[int], turns: Sequence[str]) -> list[Observation]:
        """Answer a turn of each episode: the policy's text, special tokens included."""

    def rewards(self, episodes: Sequence[int]) -> list[float | None]:
        """The environment's own reward of each episode so far; None = it has none.

        Raises UserError if the user's own code fails.
        """
        return [None] * len(episodes)

    def states(self, episodes: Sequence[int]) -> list[str | None]:
        """The state that each episode is in before its next turn, as a text.

        Equal texts are equal states. None = what the environment said last tells the state.
        Asked after `begin` and after each `step`. Raises UserError if the user's own code fails.
        """
        return [None] * len(episodes)

    def turn_rewards(self, episodes: Sequence[int]) -> list[float | None]:
        """What each episode's last turn earned; None = there are no rewards per turn.

        Asked after each `step`. An advantage may tell turns apart by them; they are in no total by
        themselves. Raises UserError if the user's own code fails.
        """
        return [None] * len(episodes)

    def handles(self, episodes: Sequence[int]) -> list[Any]:
        """What a reward function's argument `environments` holds, as in TRL: one per episode."""
        return [None] * len(episodes)

    @abstractmethod
    def end(self, episodes: Sequence[int]) -> None:
        """Forget episodes; those that are unknown or have ended already are no error."""

    def close(self) -> None:
        """End all episodes and release what they hold."""


def with_text(prompt: str | Messages, text: str | None) -> str | Messages:
    """A prompt with text added, to its last message if it is a chat; None = nothing is added."""
    if text is None:
        return prompt
    if isinstance(prompt, str):
        return prompt + text
    *before, last = prompt
    return [*before, {**last, "content": last["content"] + text}]
