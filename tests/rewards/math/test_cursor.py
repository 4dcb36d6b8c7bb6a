"""The steps of a parser over tokens."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.cursor import MAX_TERMS, Budget, Cursor
from rlkit.rewards.math.tokens import Unread


def test_a_step_is_taken_over_what_is_wanted_alone() -> None:
    cursor = Cursor(["1", "+"])
    assert not cursor.take("+", "-") and cursor.at == 0
    assert cursor.take("1", "2") and cursor.next == "+"
    with pytest.raises(Unread, match="- expected"):
        cursor.expect("-")
    cursor.expect("+")
    assert cursor.next == "" and not cursor.take("") and cursor.at == 2, "the end is no token"


def test_a_group_of_one_token() -> None:
    cursor = Cursor(["{", "x", "}", "{", "x", "y", "}"])
    assert not cursor.take_group("y")
    assert cursor.take_group("x") and cursor.at == 3
    assert not cursor.take_group("x")


@pytest.mark.parametrize(
    ("tokens", "raw", "rest"),
    [
        (["a", "b"], "a", "b"),
        (["{", "a", "{", "b", "}", "}", "c"], "a { b }", "c"),
        (["{", "\\text:in", "}"], "in", ""),
        (["{", "}", "c"], "", "c"),
        ([], "", ""),
    ],
)
def test_a_group_is_taken_unread(tokens: list[str], raw: str, rest: str) -> None:
    cursor = Cursor(tokens)
    assert cursor.raw() == raw and cursor.next == rest


def test_a_group_as_tokens() -> None:
    cursor = Cursor(["{", "a", "{", "b", "}", "}", "c"])
    assert [cursor.group(), cursor.group(), cursor.group()] == [["a", "{", "b", "}"], ["c"], []]


def test_a_budget_is_spent_once() -> None:
    budget = Budget()
    budget.spend(MAX_TERMS)
    with pytest.raises(Unread, match="too many terms"):
        budget.spend(1)
