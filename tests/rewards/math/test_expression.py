"""Expressions by recursive descent: precedence, and no reading where there are two."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.arithmetic import sympy
from rlkit.rewards.math.expression import expression
from rlkit.rewards.math.tokens import Unread, tokenize

X, Y = sympy.symbols("x y")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7),
        ("-2^2", -4),
        ("2^3^1", 8),
        ("--3", 3),
        ("12/4", 3),
        (r"\frac12", sympy.Rational(1, 2)),
        (r"2\frac{3}{4}", sympy.Rational(11, 4)),
        (r"\sqrt[3]{27}", 3),
        (r"\binom{5}{2}", 10),
        ("3!", 6),
        (r"\lfloor 7/2 \rfloor", 3),
        ("|-3|", 3),
        (r"\log_2 8", sympy.log(8) / sympy.log(2)),
        (r"\sin 30^\circ", sympy.Rational(1, 2)),
    ],
)
def test_numbers(text: str, value: object) -> None:
    assert expression(tokenize(text)) == value


def test_letters_are_factors() -> None:
    found = expression(tokenize("2xy + x"))
    names = {str(symbol): symbol for symbol in found.free_symbols}
    assert set(names) == {"x", "y"}
    assert found.subs({names["x"]: 3, names["y"]: 5}) == 33


@pytest.mark.parametrize("text", ["1/2x", "2 3", "(1", "1+", "", "(" * 60 + "1" + ")" * 60])
def test_what_has_two_readings_or_none_is_not_read(text: str) -> None:
    with pytest.raises(Unread):
        expression(tokenize(text))
