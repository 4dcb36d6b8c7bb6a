"""What every layout's reader checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.stored.foreign.record import column, json_lines, number, prompt_of


def test_lines_have_places_and_blank_ones_count(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert list(json_lines(path)) == [("a.jsonl line 1", {"a": 1}), ("a.jsonl line 3", {"a": 2})]


def test_only_the_end_of_a_line_ends_it(tmp_path: Path) -> None:
    """JSON may hold the separators of Unicode as they are."""
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a": "b\u2028c\x85"}\r\n{"a": 2}\n'.encode())
    rows = [row for _, row in json_lines(path)]
    assert rows == [{"a": "b\u2028c\x85"}, {"a": 2}]


@pytest.mark.parametrize(("line", "said"), [("{", "not valid JSON"), ("[1]", "not an object")])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' + line)
    with pytest.raises(UserError, match=f"line 2 is {said}"):
        list(json_lines(path))


def test_a_missing_column_names_those_there_are() -> None:
    assert column({"a": 0}, "a", "here") == 0
    with pytest.raises(UserError, match="here has no 'b'; columns: a"):
        column({"a": 0}, "b", "here")


@pytest.mark.parametrize("value", [None, "1", True, float("inf")])
def test_only_finite_numbers_are_rewards(value: Any) -> None:
    assert number(2, "r", "here") == 2.0
    with pytest.raises(UserError, match="not a finite number"):
        number(value, "r", "here")


def test_messages_keep_role_and_content() -> None:
    asked = [{"role": "user", "content": "q", "name": "x"}]
    assert prompt_of(asked, "p", "here") == [{"role": "user", "content": "q"}]
    with pytest.raises(UserError, match="neither a text nor"):
        prompt_of([{"role": "user", "content": [{"type": "image"}]}], "p", "here")
