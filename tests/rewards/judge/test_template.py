"""The judge's prompt: names, braces, values."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.errors import UserError
from rlkit.rewards.judge.template import check_names, filled, names_in


def test_names_are_filled_in_and_doubled_braces_are_braces() -> None:
    template = '{prompt}: {completion} ({prompt}) {{"score": 1}}'
    assert names_in(template) == ["prompt", "completion"]
    values = {"prompt": "1+1=", "completion": "2"}
    assert filled(template, values) == '1+1=: 2 (1+1=) {"score": 1}'


def test_what_a_response_says_is_never_filled_in_again() -> None:
    """A policy may write {answer}, or a brace without its other."""
    values = {"completion": "{answer} {0} {", "answer": "42"}
    assert filled("<{completion}> {answer}", values) == "<{answer} {0} {> 42"


@pytest.mark.parametrize(
    "template", ['{"score": 1}', "{", "}", "{}", "{a!r}", "{a:>9}", "{ }", "a {completion"]
)
def test_a_brace_that_belongs_to_no_name_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"write \{name\} for a column, and \{\{ and \}\} for"):
        names_in(template)


def test_a_name_is_only_a_key_and_reaches_into_nothing() -> None:
    assert names_in("{prompt.__class__} {a[0]}") == ["prompt.__class__", "a[0]"]


def test_a_typo_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"place holds \{promt\}.*mean 'prompt'\? Known: answer, p"):
        check_names(["answer", "promt"], {"prompt": 1, "answer": 2}, "place")
    check_names(["answer"], {"answer": 1}, "place")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        ("", ""),
        (3, "3"),
        (True, "True"),
        ([1, "ü"], '[1, "ü"]'),
        ({"a": None}, '{"a": null}'),
        ([], "[]"),
        ([{"role": "user", "content": "hi"}], "hi"),
        (
            [{"role": "system", "content": "Be short."}, {"role": "user", "content": "hi"}],
            "system: Be short.\n\nuser: hi",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}], "a"),
        ([{"role": "assistant", "content": None}], ""),
        ("a\ud800b", "a?b"),
    ],
)
def test_every_value_has_a_text(value: Any, text: str) -> None:
    assert filled("{x}", {"x": value}) == text


def test_a_row_without_a_value_has_no_text() -> None:
    assert filled("{completion} {answer}", {"completion": "a", "answer": None}) is None
    assert filled("{completion}", {"completion": "a", "answer": None}) == "a"
