r"""Sums, products, limits, integrals and derivatives, exact and within bounds."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.arithmetic import sympy
from rlkit.rewards.math.calculus import MAX_DEGREE
from rlkit.rewards.math.cursor import MAX_TERMS
from rlkit.rewards.math.expression import expression_of
from rlkit.rewards.math.tokens import Unread

N = sympy.Symbol("n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\sum_{k=1}^{4} k", 10),
        (r"\sum^4_{k=1} k", 10),
        (r"\sum_{i=0}^{2} i^2 + 1", 6),
        (r"\sum_{k=1}^{3} 2 \cdot k", 12),
        (r"\prod_{k=1}^{4} k", 24),
        (r"\sum_{k=1}^{2} k!", 3),
        (r"\sum_{k=1}^{2} \sum_{j=1}^{2}", None),
        (r"\lim_{x \to 0} \frac{\sin x}{x}", 1),
        (r"\lim_{n \to \infty} \frac{1}{n}", 0),
        (r"\lim_{n \to \infty} (1 + \frac{1}{n})^n", sympy.E),
        (r"\int_0^2 x \, dx", None),
        (r"\int_0^2 x dx", 2),
        (r"\int_0^1 3 x^2 d x", 1),
    ],
)
def test_values(text: str, value: object) -> None:
    if value is None:
        with pytest.raises(Unread):
            expression_of(text)
    else:
        assert expression_of(text) == value


def test_a_sum_up_to_a_symbol_has_a_closed_form_or_is_a_name() -> None:
    assert sympy.expand(expression_of(r"\sum_{k=1}^{n} k") - N * (N + 1) / 2) == 0
    unknown = expression_of(r"\sum_{k=1}^{n} \sin k")
    assert unknown == expression_of(r"\sum_{j=1}^{n} \sin j")
    assert unknown != expression_of(r"\sum_{j=1}^{n} \sin (2j)")
    assert unknown != expression_of(r"\sum_{j=0}^{n} \sin j")
    assert expression_of(r"\prod_{k=1}^{n} k") != expression_of(r"\prod_{k=1}^{n} k^2")


@pytest.mark.parametrize(
    "text",
    [
        rf"\sum_{{k=1}}^{{{MAX_TERMS + 1}}} k",
        rf"\sum_{{k=1}}^{{{MAX_TERMS}}} k + \sum_{{k=1}}^{{1}} k",
        r"\sum_{k=2}^{1} k",
        r"\sum_{k}^{1} k",
        r"\sum k",
        r"\sum_{k=1}^{9} k^{k^{k^{k}}}",
        r"\lim_{x \to 0} \frac{1}{x}",
        r"\lim_{x \to 0} \frac{|x|}{x}",
        r"\lim_{x \to \infty} \sin x",
        r"\lim_{x \to 0} y x",
        r"\lim_{x \to 0} \lfloor x \rfloor",
        r"\int x^2 dx",
        r"\int_0^1 \sin x dx",
        rf"\int_0^1 x^{{{MAX_DEGREE + 1}}} dx",
        r"\int_0^1 x",
    ],
)
def test_what_has_no_value_or_too_many_terms_is_not_read(text: str) -> None:
    with pytest.raises(Unread):
        expression_of(text)


def test_a_derivative_is_a_name_of_its_own() -> None:
    assert expression_of(r"\frac{d x}{d t}") == expression_of(r"\frac{dx}{dt}")
    assert expression_of(r"\frac{d^2 x}{d t^2}") == expression_of(r"\frac{d^{2}x}{dt^{2}}")
    names = (r"\frac{dx}{dt}", r"\frac{dx}{dy}", r"\frac{x}{t}", r"\frac{\partial x}{\partial t}")
    assert len({expression_of(text) for text in (*names, r"\frac{d^2x}{dt^2}")}) == 5
    assert expression_of(r"\frac{d}{2}") == sympy.Symbol("d") / 2
