"""What an episode earns by calling tools at all, and loses by calls that cannot be read (SPEAR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from rlkit.interfaces import INVALID_CALL, Reward, RewardConfig
from rlkit.registry import register


def calling_turns(completion: Sequence[Any]) -> int:
    """How many turns of the policy have a call that could be read."""
    return sum(m["role"] == "assistant" and bool(m.get("tool_calls")) for m in completion)


class ToolCallConfig(RewardConfig):
    """Settings of `tool_call`."""

    per_turn: Annotated[float, Field(gt=0)] = 0.1
    """What a turn with a call earns."""
    most: Annotated[float, Field(gt=0)] = 1.0
    """Most that an episode earns."""


@register("reward", "tool_call")
class ToolCall(Reward[ToolCallConfig]):
    """R = min(per_turn * turns with a tool call, most); a turn counts once for all its calls.

    It draws a policy to its tools before it knows what they are good for. SPEAR (arXiv:2509.22601)
    lets its weight fall from 1 to 0 along a cosine in 100 steps (200 in its scripts), so that the
    outcome alone counts in the end:
    `reward.tool_call.weight={kind: cosine, start: 1, end: 0, steps: 100}`. A completion that is a
    text has no turns, and gets 0.

    Public code: TencentYoutuResearch/SPEAR; for Qwen 3 it gives right answers the whole 1 for a
    single call, which is not offered.
    """

    sources = ("2509.22601",)
    marks_correctness = False

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The reward of each completion's calls."""
        c = self.config
        return [
            0.0 if isinstance(chat, str) else min(c.per_turn * calling_turns(chat), c.most)
            for chat in completions
        ]


class CallFormatConfig(RewardConfig):
    """Settings of `call_format`."""

    penalty: Annotated[float, Field(ge=0)] = 0.1
    """Subtracted for each call that cannot be read; verl-agent's invalid_action_penalty_coef."""


@register("reward", "call_format")
class CallFormat(Reward[CallFormatConfig]):
    """R = -penalty * calls that cannot be read; 0 for a completion without any.

    The format term of SPEAR's reward (arXiv:2509.22601). Status: adapted. What its format asks for
    is unconfirmed: its code for mathematics has no such term, and that for games takes the penalty
    from the turn with the invalid action, where here the episode loses it. A call in a turn that
    nothing answers, such as the last of `turns.max`, is not seen.

    Public code: verl-agent and TencentYoutuResearch/SPEAR, 0.1 for each invalid action.
    """

    sources = ("2509.22601",)
    marks_correctness = False

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The penalty of each completion."""
        return [-self.config.penalty * invalid_calls(chat) for chat in completions]


def invalid_calls(completion: Any) -> int:
    """How many answers of a chat say that a call could not be read."""
    if isinstance(completion, str):
        return 0
    return sum(m["role"] == "tool" and m.get("name") == INVALID_CALL for m in completion)
