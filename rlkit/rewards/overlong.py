"""DAPO's soft punishment of long completions (arXiv:2503.14476, Eq. 13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from rlkit.errors import UserError
from rlkit.interfaces import Reward, RewardConfig, RunContext
from rlkit.registry import register
from rlkit.rewards.inputs import column

SHARE = 5
"""L / C in the paper: 20480 / 4096."""


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

    max_length: Annotated[int, Field(ge=1)] | None = None
    """Tokens at which the punishment reaches -1, at most rollout.max_completion_length; null = that
    length, as in the paper."""
    buffer: Annotated[int, Field(ge=1)] | None = None
    """Tokens before max_length over which it grows linearly; null = a fifth of max_length, the
    paper's 4096 of 20480."""

    @model_validator(mode="after")
    def _buffer_fits(self) -> Self:
        if self.max_length is not None:
            _check(self.buffer, self.max_length)
        return self


def _check(buffer: int | None, max_length: int) -> None:
    if buffer is not None and buffer > max_length:
        raise ValueError(f"buffer={buffer} must not be larger than max_length={max_length}")


@register("reward", "overlong")
class Overlong(Reward[OverlongConfig]):
    """0 for completions that leave room, falling linearly to -1 at the length limit."""

    marks_correctness = False

    def open(self, context: RunContext) -> None:
        """Take the run's length. Raises UserError for settings that it contradicts."""
        super().open(context)
        c, longest = self.config, context.max_completion_length
        if longest is None:
            return
        if c.max_length is not None and c.max_length > longest:
            raise UserError(
                f"reward.overlong.max_length={c.max_length} is never reached: responses end at "
                f"rollout.max_completion_length={longest}; leave it at null, which follows it"
            )
        try:
            _check(c.buffer, self.max_length)
        except ValueError as error:
            raise UserError(f"reward.overlong.{error}, which is that of the run") from None

    def notes(self) -> Sequence[str]:
        """Whether responses may be longer than the length that is punished in full."""
        length, longest = self.config.max_length, self.context.max_completion_length
        if length is None or longest is None or length == longest:
            return ()
        return (
            f"Warning: reward.overlong.max_length={length} gives -1 to every response of more "
            f"tokens, of which rollout.max_completion_length={longest} allows some.",
        )

    @property
    def max_length(self) -> int:
        """L: the setting, or else the run's. Raises UserError if there is neither."""
        length = self.config.max_length or self.context.max_completion_length
        if length is None:
            raise UserError("reward 'overlong' outside a run needs max_length")
        return length

    @property
    def buffer(self) -> int:
        """C: the setting, or else a fifth of L."""
        return self.config.buffer or max(1, self.max_length // SHARE)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The punishment of each completion, from the length of `completion_ids`."""
        ids = column(columns, "completion_ids", "overlong")
        longest, buffer = self.max_length, self.buffer
        return [overlong_punishment(len(row), longest, buffer) for row in ids]
