"""What rewards read from their arguments: the text of a completion, a column of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlkit.errors import UserError, suggest


def completion_text(completion: Any) -> str:
    """The text of a completion: itself, or the content of the last message of a chat."""
    text: str = completion if isinstance(completion, str) else completion[-1]["content"]
    return text


def column(columns: Mapping[str, Sequence[Any]], name: str, reward: str) -> Sequence[Any]:
    """A column of the task. Raises UserError, naming the known ones, if it is missing."""
    if name not in columns:
        known = sorted(set(columns) - {"completion_ids", "finish_reasons"})
        raise UserError(
            f"reward '{reward}' needs a column called '{name}', which the task does not have."
            f"{suggest(name, known)} Columns: {', '.join(known) or 'none'}"
        )
    return columns[name]


def answer_texts(columns: Mapping[str, Sequence[Any]], reward: str) -> list[str | None]:
    """The `answer` column as stripped text; None if a row has no answer."""
    answers = column(columns, "answer", reward)
    return [None if a is None or not str(a).strip() else str(a).strip() for a in answers]
