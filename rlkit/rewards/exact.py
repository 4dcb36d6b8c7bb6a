"""Whether the completion gives the answer, compared as text or as an exact number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field

from rlkit.errors import UserError
from rlkit.interfaces import Reward, RewardConfig
from rlkit.registry import register
from rlkit.rewards.inputs import answer_texts, completion_text

# A minus after a digit, a letter or a bracket is a subtraction, not a sign.
NUMBER = re.compile(
    r"(?:(?<![\w)\]}.])[-\u2212])?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
    r"|(?:(?<![\w)\]}.])[-\u2212])?(?<![0-9.])\.[0-9]+"
)


def last_number(text: str) -> Decimal | None:
    """The last decimal number in a text, exactly; `1,234.0` is 1234. None if there is no number.

    Fractions, exponents and percent signs are not read: `3/4` ends in 4.
    """
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "").replace("\u2212", "-")) if found else None


def text_after(text: str, marker: str) -> str | None:
    """The stripped text after a marker; None unless the marker occurs exactly once."""
    _before, found, after = text.partition(marker)
    return after.strip() if found and marker not in after else None


class ExactConfig(RewardConfig):
    """Settings of `exact`."""

    extract: Literal["all", "last_number", "after"] = "all"
    """What is compared with the answer: the whole text, the last number in it (compared exactly:
    1,234.0 equals 1234), or the text after the only occurrence of `marker`."""
    marker: Annotated[str, Field(min_length=1)] = "####"
    """With extract=after, the answer follows it; a text without exactly one gets 0."""


@register("reward", "exact")
class Exact(Reward[ExactConfig]):
    """1 if the completion equals the `answer` column, else 0; None for a row without one."""

    marks_correctness = True

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """One score per completion. Raises UserError if last_number finds none in an answer."""
        answers = answer_texts(columns, "exact")
        return [
            None if answer is None else float(self._equal(completion_text(completion), answer))
            for completion, answer in zip(completions, answers, strict=True)
        ]

    def _equal(self, text: str, answer: str) -> bool:
        if self.config.extract == "all":
            return text.strip() == answer
        if self.config.extract == "after":
            return text_after(text, self.config.marker) == answer
        wanted = last_number(answer)
        if wanted is None:
            raise UserError(
                f"reward 'exact' with extract=last_number: the answer {answer!r} holds no number; "
                "use reward.exact.extract=all or another reward"
            )
        return last_number(text) == wanted
