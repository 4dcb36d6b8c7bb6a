"""Preferences in TRL's formats."""

from __future__ import annotations

from typing import Any

import pytest
from trl.data_utils import extract_prompt

from rlkit.errors import UserError
from rlkit.ops import split_preference

USER = {"role": "user", "content": "q"}
GOOD, BAD = {"role": "assistant", "content": "yes"}, {"role": "assistant", "content": "no"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q", "chosen": "yes", "rejected": "no"}, ("q", "yes", "no")),
        ({"chosen": "q yes", "rejected": "q no"}, ("q", " yes", " no")),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, ([USER], "yes", "no")),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, ([USER], "yes", "no")),
    ],
)
def test_trl_formats(row: dict[str, Any], expected: tuple[Any, str, str]) -> None:
    assert split_preference(row, "here") == expected
    if "prompt" not in row:
        theirs = extract_prompt(row)
        assert theirs["prompt"] == expected[0]
        answers = [theirs[name] for name in ("chosen", "rejected")]
        texts = [a if isinstance(a, str) else a[0]["content"] for a in answers]
        assert texts == [*expected[1:]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "q", "chosen": "a"}, "no 'rejected'"),
        ({"prompt": "q", "chosen": "a", "rejected": [BAD]}, "or the reverse"),
        ({"chosen": "yes", "rejected": "no"}, "do not begin alike"),
        ({"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, BAD]}, "one assistant message"),
    ],
)
def test_other_rows_are_one_line(row: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        split_preference(row, "here")
