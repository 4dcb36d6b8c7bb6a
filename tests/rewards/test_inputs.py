"""What rewards read from their arguments."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.rewards.inputs import answer_texts, column, completion_text


def test_the_text_of_a_chat_is_its_last_message() -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert completion_text(chat) == "b" and completion_text("c") == "c"


def test_a_missing_column_is_told_with_the_nearest_and_those_there_are() -> None:
    columns: dict[str, list[Any]] = {"answers": [1], "level": [2], "completion_ids": [[3]]}
    assert column(columns, "level", "own") == [2]
    with pytest.raises(UserError) as caught:
        column(columns, "answer", "own")
    assert str(caught.value) == (
        "reward 'own' needs a column called 'answer', which the task does not have."
        " Did you mean 'answers'? Columns: answers, level"
    )
    with pytest.raises(UserError, match="Columns: none"):
        column({"completion_ids": []}, "answer", "own")


def test_answers_are_stripped_text_and_none_where_there_is_none() -> None:
    assert answer_texts({"answer": [" 4\n", 5, 0, None, " "]}, "own") == ["4", "5", "0", None, None]
