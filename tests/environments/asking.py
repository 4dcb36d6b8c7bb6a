"""What tests of environments share: calls as a policy writes them, and an open environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlkit.environments.formats import FORMATS
from rlkit.interfaces import Environment, EpisodeContext, Observation, Start

USERS = Path(__file__).parent / "users"
INCREMENT, ODD = f"{USERS / 'increment.py'}", f"{USERS / 'odd.py'}"


def call(name: str, /, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def opened(environment: Environment[Any], **context: Any) -> Environment[Any]:
    environment.open(EpisodeContext(parse=FORMATS["hermes"], **context))
    return environment


def start(episode: int = 0, seed: int = 0, **row: Any) -> Start:
    return Start(episode=episode, row={"prompt": "p", **row}, seed=seed)


def contents(observation: Observation) -> list[str]:
    return [str(message["content"]) for message in observation.messages]


def events(observation: Observation) -> Mapping[str, int]:
    return {name: count for name, count in observation.counts.items() if count}
