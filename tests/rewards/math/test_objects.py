"""What kind of thing a text names: a set, an interval, a matrix, a ratio, a numeral, a value."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.form import Form
from rlkit.rewards.math.objects import encloses, read_object
from rlkit.rewards.math.tokens import Unread, tokenize


def of(text: str) -> Form:
    return read_object(tokenize(text))


@pytest.mark.parametrize(
    ("text", "kind", "items"),
    [
        ("5", "value", 0),
        (r"\{1, 2\}", "set", 2),
        (r"\emptyset", "set", 0),
        ("(1, 2)", "()", 2),
        ("[0, 1)", "[)", 2),
        ("(0,1) \\cup (2,3)", "union", 2),
        ("1:2:3", "ratio", 3),
        (r"\pm 3", "list", 2),
        (r"\{\pm 3\}", "set", 2),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \\ \end{pmatrix}", "matrix", 2),
        ("(1; 2)", "()", 2),
        (r"\{1; 2\}", "set", 2),
        (r"\{1\} \cup \{1, 2\}", "set", 2),
        ("(1)(3)", "set", 2),
        (r"\mathbb{R}", "()", 2),
        (r"\mathbb{R} \setminus \{0, 1\}", "union", 3),
        (r"2\begin{pmatrix} 1 & 2 \end{pmatrix}", "matrix", 1),
        (r"(\begin{pmatrix} 1 & 2 \end{pmatrix})", "matrix", 1),
        ("101_2", "numeral", 0),
        ("(101)_2", "numeral", 0),
        ("(5)", "value", 0),
    ],
)
def test_kinds(text: str, kind: str, items: int) -> None:
    form = of(text)
    assert form.kind == kind and len(form.items) == items


def test_values_carry_percent_and_units() -> None:
    assert of("50%").value == of(r"\frac12").value and of("50%").unit == ""
    assert of(r"5\text{ cm}").unit == "cm" and of(r"5\text{ cm}").value == 5
    with pytest.raises(Unread, match="unit of an expression"):
        of("x%")
    with pytest.raises(Unread, match="empty"):
        of("%")


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("0101_2", "101 base 2"),
        ("2F_{16}", "2F base 16"),
        ("2f_{16}", "2F base 16"),
        (r"12_\text{five}", "12 base 5"),
        ("0_3", "0 base 3"),
    ],
)
def test_numerals_are_digits_with_their_base(text: str, digits: str) -> None:
    assert of(text).unit == digits


def test_digits_beyond_the_base_are_not_read() -> None:
    with pytest.raises(Unread, match="beyond the base"):
        of("12_2")


@pytest.mark.parametrize(
    ("text", "whole"), [("(1)", True), ("(1)(2)", False), ("1", False), ("((1)(2))", True)]
)
def test_a_bracket_around_everything(text: str, whole: bool) -> None:
    assert encloses(tokenize(text)) == whole


@pytest.mark.parametrize("text", ["(1; 2, 3)", r"\{1; 2, 3\}", r"\mathbb{R} - \{(1,2)\}"])
def test_what_has_two_readings_is_not_read(text: str) -> None:
    with pytest.raises(Unread):
        of(text)
