"""What the run's environment itself says of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlkit.interfaces import Reward
from rlkit.registry import register

COLUMN = "environment_reward"
"""The column in which rewards find it."""
HANDLES = "environments"
"""The argument in which rewards find the environments themselves, as in TRL."""


@register("reward", "environment")
class EnvironmentReward(Reward):
    """The environment's own reward, `get_reward()` of a user's class as in TRL.

    It is asked when an episode ends, whatever ended it. None for an episode without one.
    """

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The rewards that came with the responses."""
        return list(columns.get(COLUMN) or [None] * len(completions))
