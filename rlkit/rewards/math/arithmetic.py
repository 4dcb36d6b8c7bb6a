"""Exact arithmetic on what a model wrote, with a bound on every number, and the names it knows."""

from __future__ import annotations

import importlib
from fractions import Fraction
from typing import Any

from rlkit.rewards.math.spellings import words_of
from rlkit.rewards.math.tokens import Unread

sympy: Any = importlib.import_module("sympy")

MAX_DIGITS = 1000
MAX_BITS = 100_000
"""Most bits of a number that is evaluated: 2024^{4046} is, 9**9**9**9 is not."""
MAX_EXPONENT = 100
"""Of a sum, whose powers may be expanded."""
MAX_FACTORIAL = 3000
GREEK = words_of(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu "
    "xi rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi "
    "Psi Omega hbar ell"
)
ACCENTS = (r"\overline", r"\bar", r"\vec", r"\hat", r"\tilde", r"\dot", r"\ddot")
CONSTANTS = {r"\pi": sympy.pi, r"\infty": sympy.oo, "e": sympy.E, "i": sympy.I}
LOG_UNIT = sympy.Symbol("log of the base", positive=True)
"""log without a base is a logarithm to an unknown base: neither ln nor log_10."""


def rational(literal: str) -> Any:
    """A decimal literal, exactly. Raises Unread beyond MAX_DIGITS."""
    mantissa, _, exponent = literal.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or abs(int(exponent[:8] or 0)) > MAX_DIGITS:
        raise Unread("number too long")
    value = Fraction(literal)
    return sympy.Rational(value.numerator, value.denominator)


def power(base: Any, exponent: Any) -> Any:
    """base ** exponent within the bounds; the real root of a negative number if it has one."""
    if exponent.has(sympy.zoo, sympy.nan, sympy.oo):
        raise Unread("no finite exponent")
    size = abs(sympy.N(exponent, 15)) if exponent.is_number else 1
    bits = [max(q.p.bit_length(), q.q.bit_length()) for q in base.atoms(sympy.Rational)]
    limit = MAX_EXPONENT if base.is_Add else MAX_BITS / max(bits, default=1)
    if not size <= max(limit, 1):
        raise Unread("power too large")
    return sympy.Pow(base, exponent)


def root(radicand: Any, degree: Any) -> Any:
    """The degree-th root; of a negative number with an odd degree the real one."""
    if radicand.is_Rational and radicand < 0 and degree.is_Integer and degree % 2 == 1:
        return -power(-radicand, 1 / degree)
    return power(radicand, 1 / degree)


def factorial(value: Any) -> Any:
    """The factorial of a natural number up to MAX_FACTORIAL or of an expression."""
    if value.is_number and not (value.is_Integer and 0 <= value <= MAX_FACTORIAL):
        raise Unread("factorial")
    return sympy.factorial(value)


def binomial(top: Any, bottom: Any) -> Any:
    """The binomial coefficient of natural numbers up to MAX_FACTORIAL or of expressions."""
    for value in (top, bottom):
        if value.is_number and not (value.is_Integer and 0 <= value <= MAX_FACTORIAL):
            raise Unread("binomial")
    return sympy.binomial(top, bottom)


def residue(value: Any, modulus: Any) -> Any:
    """value mod modulus, of whole numbers. Raises Unread for others."""
    if not (value.is_Integer and modulus.is_Integer and modulus > 0):
        raise Unread("mod of something else than whole numbers")
    return value % modulus
