"""What an environment must do."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from rlkit.environments.formats import FORMATS
from rlkit.environments.hosted import Hosted
from rlkit.errors import UserError
from rlkit.interfaces import COUNTS, Environment, EpisodeContext, Observation, Start
from rlkit.testing.base import require

ENTRY = {
    "question": "1 + 1 =",
    "answer": "2",
    "metadata": {"source_dataset": "chain_sum", "source_index": 0},
}
ROW: dict[str, Any] = {
    "prompt": [{"role": "user", "content": "1 + 1 ="}],
    "answer": "2",
    "problem": 1,
    "entry": ENTRY,
}
VALUES = {"string": "1", "integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}
ROLES = ("tool", "user")


def row_of(environment: Environment[Any]) -> dict[str, Any]:
    """An example row, with a column for everything that a class's `reset` asks for."""
    needed = environment.needed if isinstance(environment, Hosted) else ()
    return dict.fromkeys(needed, "2") | ROW


def turns_of(environment: Environment[Any]) -> list[str]:
    """Turns that any policy may write: calls of each tool, one that cannot be read, and a text."""
    calls = [call_of(schema["function"]) for schema in environment.schemas(row_of(environment))]
    return [*calls, "<tool_call>{</tool_call>", "2"]


def call_of(function: dict[str, Any]) -> str:
    """A call of a tool with a value of each argument's type."""
    properties = function["parameters"].get("properties", {})
    arguments = {
        name: about["enum"][0] if "enum" in about else VALUES.get(about.get("type"), "1")
        for name, about in properties.items()
    }
    return (
        f"<tool_call>{json.dumps({'name': function['name'], 'arguments': arguments})}</tool_call>"
    )


def played(environment: Environment[Any], episodes: Sequence[int]) -> list[list[Observation]]:
    """Each episode's observations, all episodes together, up to its end or that of the turns."""
    starts = [Start(episode=e, row=row_of(environment), seed=1) for e in episodes]
    out: dict[int, list[Observation]] = {episode: [] for episode in episodes}
    try:
        environment.check([start.row for start in starts])
        environment.begin(starts)
        for turn in turns_of(environment):
            going = [e for e in episodes if not (out[e] and out[e][-1].done)]
            for episode, seen in zip(
                going, environment.step(going, [turn] * len(going)), strict=True
            ):
                out[episode].append(seen)
    except UserError as error:
        raise AssertionError(str(error)) from error
    return [out[episode] for episode in episodes]


def opened(environment: Environment[Any]) -> Environment[Any]:
    """The environment in an example run."""
    environment.open(EpisodeContext(seed=1, parse=FORMATS["hermes"], calls_per_turn=2))
    return environment


def every_turn_is_answered_or_ends_the_episode(environment: Environment[Any]) -> None:
    """Messages of the roles tool and user with a text, or the end; counts by known names."""
    for seen in played(opened(environment), [1, 2])[0]:
        require(
            seen.done != bool(seen.messages),
            "a turn is answered by messages, or it is done and has none",
        )
        require(
            all(m["role"] in ROLES and isinstance(m["content"], str) for m in seen.messages),
            "a message has the role tool or user, and a text as content",
        )
        unknown = sorted(set(seen.counts) - set(COUNTS))
        require(not unknown, f"there are no counts called {', '.join(unknown)}")
    environment.close()


def an_episode_does_not_depend_on_others(environment: Environment[Any]) -> None:
    """The same answers alone and beside others, and again when it begins anew."""
    opened(environment)
    together = played(environment, [1, 2])[0]
    environment.end([1, 2])
    alone = played(environment, [1])[0]
    require(
        together == alone,
        "an episode that begins anew, alone, gets other answers than beside others",
    )
    environment.close()


def rewards_are_finite_numbers_or_none(environment: Environment[Any]) -> None:
    """One for each episode; and an episode may end twice."""
    played(opened(environment), [1, 2])
    values = environment.rewards([2, 1])
    require(len(values) == 2, f"{len(values)} rewards came for 2 episodes")
    require(
        all(value is None or math.isfinite(value) for value in values),
        f"a reward is a finite number or None, not {values}",
    )
    require(
        environment.scores or values == [None, None],
        "it gives rewards, and `scores` says that it gives none",
    )
    environment.end([1, 2])
    environment.end([1])
    environment.close()


def states_are_texts_and_turns_earn_numbers(environment: Environment[Any]) -> None:
    """Or None, one for each episode."""
    played(opened(environment), [1, 2])
    states: list[Any] = [*environment.states([2, 1])]
    earned = environment.turn_rewards([2, 1])
    require(
        len(states) == len(earned) == 2,
        f"{len(states)} states and {len(earned)} rewards of turns came for 2 episodes",
    )
    require(
        all(state is None or isinstance(state, str) for state in states),
        f"a state is a text or None, not {states}",
    )
    require(
        all(value is None or math.isfinite(value) for value in earned),
        f"what a turn earned is a finite number or None, not {earned}",
    )
    environment.end([1, 2])
    environment.close()


ENVIRONMENT = (
    every_turn_is_answered_or_ends_the_episode,
    an_episode_does_not_depend_on_others,
    rewards_are_finite_numbers_or_none,
    states_are_texts_and_turns_earn_numbers,
)
