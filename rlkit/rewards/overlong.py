"""DAPO's soft punishment of long completions (arXiv:2503.14476, Eq. 13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from rlkit.interfaces import Reward, RewardConfig
from rlkit.registry import register
from rlkit.rewards.inputs import column


def overlong_punishment(length: int, max_length: int, buffer: int) -> float:
    """R(|y|) with L = max_length and C = buffer (arXiv:2503.14476, Eq. 13).

    0                  |y| <= L - C
    ((L - C) - |y|)/C  L - C < |y| <= L
    -1                 L < |y|
    """
    if length > max_length:
        return -1.0
    return min(0.0, (max_length - buffer - length) / buffer)


class OverlongConfig(RewardConfig):
    """Settings of `overlong`."""

    max_length: Annotated[int, Field(ge=1)] = 512
    """Tokens at which the punishment reaches -1; set it to rollout.max_completion_length."""
    buffer: Annotated[int, Field(ge=1)] = 128
    """Tokens before max_length over which it grows linearly (the paper: 4096 of 20480)."""

    @model_validator(mode="after")
    def _buffer_fits(self) -> Self:
        if self.buffer > self.max_length:
            raise ValueError(
                f"buffer={self.buffer} must not be larger than max_length={self.max_length}"
            )
        return self


@register("reward", "overlong")
class Overlong(Reward[OverlongConfig]):
    """0 for completions that leave room, falling to -1 at `max_length` tokens."""

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The punishment of each completion, from the length of `completion_ids`."""
        ids = column(columns, "completion_ids", "overlong")
        c = self.config
        return [overlong_punishment(len(row), c.max_length, c.buffer) for row in ids]
