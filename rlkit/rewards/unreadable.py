"""Whether a response is no text: it holds bytes that make no character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlkit.interfaces import Reward, RewardConfig
from rlkit.registry import register
from rlkit.rewards.missing_eos import CUT_OFF
from rlkit.rewards.scoring import FINISH_REASONS

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

    The length limit may cut a character in two, which says nothing of the policy: of a response
    that it ended, what could not be decoded at its end does not count, if there is anything else.

    Such responses come from a policy that falls apart; SPEAR (arXiv:2509.22601) leaves them out of
    the loss, which `correction=unreadable_filter` does with what this reward says. In an episode
    the turns of the policy count.

    Public code: TencentYoutuResearch/SPEAR looks for U+FFFD, and for what it becomes when it is
    decoded wrongly, in the whole response, also where the length limit cut a character.
    """

    sources = ("2509.22601",)
    marks_correctness = False

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """Whether each completion has it."""
        reasons = columns.get(FINISH_REASONS, [None] * len(completions))
        return [
            float(any(NO_CHARACTER in text for text in own_texts(completion, reason == CUT_OFF)))
            for completion, reason in zip(completions, reasons, strict=True)
        ]


def own_texts(completion: Any, cut_off: bool) -> list[str]:
    """What the policy wrote: the completion, or thoughts and contents of its turns, in order.

    The last text lacks the characters that were `cut_off`.
    """
    said = [completion]
    if not isinstance(completion, str):
        own = [m for m in completion if m["role"] == "assistant"]
        said = [m.get(part) for m in own for part in ("reasoning_content", "content")]
    texts = [text for text in said if isinstance(text, str) and text]
    whole = texts[-1].rstrip(NO_CHARACTER) if texts and cut_off else ""
    return [*texts[:-1], whole] if whole else texts
