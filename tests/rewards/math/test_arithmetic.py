"""Exact numbers within bounds, and real roots of negative ones."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from rlkit.rewards.math.arithmetic import (
    MAX_BITS,
    MAX_DIGITS,
    MAX_EXPONENT,
    MAX_FACTORIAL,
    binomial,
    factorial,
    power,
    rational,
    root,
    sympy,
)
from rlkit.rewards.math.tokens import Unread

X = sympy.Symbol("x")


def whole(number: int) -> Any:
    return sympy.Integer(number)


@pytest.mark.parametrize(
    ("literal", "value"),
    [("0.1", Fraction(1, 10)), ("1.5e2", Fraction(150)), ("2E-3", Fraction(1, 500))],
)
def test_a_decimal_is_read_exactly(literal: str, value: Fraction) -> None:
    assert rational(literal) == sympy.Rational(value.numerator, value.denominator)


@pytest.mark.parametrize("literal", ["1" * (MAX_DIGITS + 1), "1e1001", "1e-99999999999"])
def test_a_number_too_long_is_not_read(literal: str) -> None:
    with pytest.raises(Unread):
        rational(literal)
    assert rational("1" * MAX_DIGITS) and rational("1e1000")


def test_powers_are_worked_out_up_to_their_bits() -> None:
    assert power(whole(2), whole(10)) == 1024
    assert power(whole(2), whole(MAX_BITS // 2)) == 2 ** (MAX_BITS // 2)
    for base, exponent in ((2, MAX_BITS), (9, 9**9)):
        with pytest.raises(Unread, match="power too large"):
            power(whole(base), whole(exponent))
    with pytest.raises(Unread, match="power too large"):
        power(X + 1, whole(MAX_EXPONENT + 1))
    assert power(X + 1, whole(MAX_EXPONENT)) == (X + 1) ** MAX_EXPONENT
    with pytest.raises(Unread, match="no finite exponent"):
        power(whole(2), sympy.oo)


def test_odd_roots_of_negative_numbers_are_real() -> None:
    assert root(whole(-8), whole(3)) == -2
    assert root(whole(16), whole(4)) == 2
    assert root(whole(-4), whole(2)) == 2 * sympy.I


def test_factorials_and_binomials_are_of_natural_numbers() -> None:
    assert factorial(whole(5)) == 120 and binomial(whole(7), whole(3)) == 35
    assert factorial(X) == sympy.factorial(X) and binomial(X, whole(2)).has(X)
    for value in (whole(-1), whole(MAX_FACTORIAL + 1), sympy.Rational(1, 2)):
        with pytest.raises(Unread):
            factorial(value)
        with pytest.raises(Unread):
            binomial(whole(5), value)
