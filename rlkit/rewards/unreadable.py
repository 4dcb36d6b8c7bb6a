"""Whether a response is no text: it holds bytes that make no character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlkit.interfaces import Reward, RewardConfig
from rlkit.registry import register

NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""What bytes that make no character are decoded to."""


class UnreadableConfig(RewardConfig):
    """Settings of `unreadable`."""

    weight: float = 0.0
    """Its weight in the total: 0 by default, since it is there for `correction=unreadable_filter`
    and the metrics. It may follow a scalar schedule."""


@register("reward", "unreadable")
class Unreadable(Reward[UnreadableConfig]):
    """1 for a response in which a character could not be decoded, else 0. It is in no total.

    Such responses come from a policy that falls apart; SPEAR (arXiv:2509.22601) leaves them out of
    the loss, which `correction=unreadable_filter` does with what this reward says. In an episode
    the turns of the policy count.

    Public code: TencentYoutuResearch/SPEAR looks for U+FFFD, and for what it becomes when it is
    decoded wrongly, in the whole response.
    """

    sources = ("2509.22601",)
    marks_correctness = False

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """Whether each completion has it."""
        return [float(any(NO_CHARACTER in text for text in own_texts(c))) for c in completions]


def own_texts(completion: Any) -> list[str]:
    """What the policy wrote: the completion, or the contents of its turns."""
    if isinstance(completion, str):
        return [completion]
    own = [m for m in completion if m["role"] == "assistant"]
    said = [m.get(part) for m in own for part in ("content", "reasoning_content")]
    return [text for text in said if isinstance(text, str)]
