"""How responses are marked: the settings of rewards, and the code of a user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from rlkit.composition.describe import user_source
from rlkit.interfaces import Part, Reward
from rlkit.rewards.task import TaskReward
from rlkit.runs.resume import HARMLESS, flat

LIMITS = ("timeout", "time_limit", "tries")
"""Settings that change marks where a reward fails, though a run may be resumed with others."""
SPEED = ("concurrency", "cache")
"""Settings of a judge that change no mark."""
DIGITS = 16
"""Hexadecimal digits of a source's hash."""


def marking(rewards: Mapping[str, Reward]) -> dict[str, Any]:
    """What marks depend on besides the responses, by setting: `reward.exact.extract`.

    A task that scores has its own settings, and a user's reward or task the hash of its file. What
    changes only the speed, or where a service is, is left out.
    """
    found: dict[str, Any] = {}
    for name, reward in rewards.items():
        section, part = marker(name, reward)
        settings = flat(part.config.model_dump(mode="json"), section)
        found |= {key: value for key, value in settings.items() if matters(key)}
        if (own := user_source(type(part))) is not None:
            found[f"{section}.source"] = hashlib.sha256(own[1]).hexdigest()[:DIGITS]
    return found


def matters(key: str) -> bool:
    """Whether marks depend on a setting."""
    name = key.rpartition(".")[2]
    return name in LIMITS or name not in (*HARMLESS, *SPEED)


def marker(name: str, reward: Reward) -> tuple[str, Part[Any]]:
    """What scores under a reward's name, the reward or its task, and how its settings begin."""
    itself = reward.itself
    if isinstance(itself, TaskReward):
        mixed = itself is not reward
        return f"task.parts.{name.partition('/')[0]}" if mixed else "task", itself.task
    return f"reward.{name}", itself
