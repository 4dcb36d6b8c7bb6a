"""Names in expressions: what is one symbol, what is a product, and what is a function's value."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.expression import expression_of
from rlkit.rewards.math.names import subscript
from rlkit.rewards.math.tokens import Unread


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("v_0", "v_{0}"),
        (r"v_{\max}", r"v_{\text{max}}"),
        (r"m_{\mathrm{e}}", "m_e"),
        (r"\dot{x}_0", r"\dot{x}_{0}"),
        (r"\hat x", r"\hat{x}"),
        ("x'", r"x^{\prime}"),
        ("mgh", "m g h"),
        ("xy", "y x"),
        ("I(0)", "I(0)"),
    ],
)
def test_two_spellings_of_one_name(one: str, other: str) -> None:
    assert expression_of(one) == expression_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("v_0", "v_1"),
        ("v_0", "v"),
        ("x_1 x_2", "x_{12}"),
        ("a_{n+1}", "a_n + 1"),
        (r"\dot{x}", r"\ddot{x}"),
        (r"\hat{x}", "x"),
        ("x'", "x"),
        ("x''", "x'"),
        ("I(0)", "0"),
        ("I(0)", "I"),
        ("x(t)", "x t"),
    ],
)
def test_two_names(one: str, other: str) -> None:
    assert expression_of(one) != expression_of(other)


def test_a_bracket_with_more_than_one_sign_is_a_factor() -> None:
    assert expression_of("n(n+1)") == expression_of("n(1+n)")
    assert expression_of("f(n+1)") != expression_of("f (n) + f(1)")


@pytest.mark.parametrize("text", ["seat", "cab", "ABC", "Bcdfg", "@"])
def test_words_and_names_of_points_are_no_products(text: str) -> None:
    with pytest.raises(Unread):
        expression_of(text)


def test_a_subscript_has_one_spelling() -> None:
    assert [subscript(raw) for raw in ("n + 1", "{ 0 }", r"\max", " ")] == ["n+1", "0", "max", " "]
