"""A constant penalty for responses that were cut off before they ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from rlkit.interfaces import Reward, RewardConfig
from rlkit.registry import register
from rlkit.rewards.inputs import column
from rlkit.rewards.scoring import FINISH_REASONS

CUT_OFF = "length"
"""The finish reason of a response without an end-of-sequence token."""


class MissingEosConfig(RewardConfig):
    """Settings of `missing_eos`."""

    penalty: Annotated[float, Field(ge=0)] = 1.0
    """Subtracted from the reward of a response that reached rollout.max_completion_length without
    ending; TRL's `missing_eos_penalty`."""


@register("reward", "missing_eos")
class MissingEos(Reward[MissingEosConfig]):
    """R = -penalty for a response that was cut off, 0 for one that ended by itself.

    Asynchronous RLHF (arXiv:2410.18252) gives such a response -1 in place of its score, which is
    `unfinished=-1` of the reward `model`; here it is added to whatever the other rewards give.
    """

    sources = ("2410.18252",)
    marks_correctness = False

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The penalty of each completion, by its finish reason."""
        reasons = column(columns, FINISH_REASONS, "missing_eos")
        return [-self.config.penalty if reason == CUT_OFF else 0.0 for reason in reasons]
