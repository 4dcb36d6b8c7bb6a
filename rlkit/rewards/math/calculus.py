r"""Sums, products, limits, integrals and derivatives, where they can be worked out exactly.

A sum over numbers adds its terms one by one; one up to a symbol has a closed form if its term is a
polynomial, and else stays a name that equals only itself.
"""

from __future__ import annotations

from typing import Any

from rlkit.rewards.math.arithmetic import GREEK, sympy
from rlkit.rewards.math.cursor import Expressions
from rlkit.rewards.math.spellings import words_of
from rlkit.rewards.math.tokens import Unread, bracket_step

MAX_DEGREE = 10
MAX_DEGREE_OF_MANY = 4
"""Of a term with more symbols than the index."""
BOUND = sympy.Symbol("bound")
REAL = sympy.Symbol("bound", real=True)
SMOOTH = {getattr(sympy, name) for name in words_of("sin cos tan asin acos atan exp log")}
NEAR, NEARER = sympy.Rational(1, 10**3), sympy.Rational(1, 10**6)
DIGITS = 40


def bounds(reader: Expressions) -> dict[str, list[str]]:
    """The groups behind _ and ^."""
    found: dict[str, list[str]] = {}
    for _ in range(2):
        for sign in ("_", "^"):
            if sign not in found and reader.take(sign):
                found[sign] = reader.group()
    return found


def indexed(reader: Expressions) -> tuple[str, Any, Any, list[str], Any]:
    """The index of a sum, its first and last value, the tokens of its term, and the term."""
    limits = bounds(reader)
    name, equals, *low = limits.get("_", []) + [""] * 2
    if not is_name(name) or equals != "=" or "^" not in limits:
        raise Unread("bounds of a sum")
    first, last = reader.inner(low[:-2]), reader.inner(limits["^"])
    start = reader.at
    term = body(reader, name, BOUND)
    return name, first, last, reader.tokens[start : reader.at], term


def body(reader: Expressions, name: str, symbol: Any) -> Any:
    """The term that stands here, in which a name is a symbol of its own."""
    hidden = reader.scope.get(name)
    if BOUND in reader.scope.values() or REAL in reader.scope.values():
        raise Unread("a sum in a sum")
    reader.scope[name] = symbol
    term = reader.term()
    del reader.scope[name]
    if hidden is not None:
        reader.scope[name] = hidden
    return term


def terms(reader: Expressions, name: str, first: Any, last: Any, tokens: list[str]) -> list[Any]:
    """The terms of a sum over whole numbers, each read with the number in place of the index."""
    count = int(last - first) + 1
    if count < 1:
        raise Unread("no terms")
    reader.budget.spend(count)
    return [reader.inner(tokens, {name: first + i}) for i in range(count)]


def series(reader: Expressions) -> Any:
    r"""\sum_{k=a}^{b} term."""
    name, first, last, tokens, term = indexed(reader)
    if first.is_Integer and last.is_Integer:
        return sympy.Add(*terms(reader, name, first, last, tokens))
    degree = MAX_DEGREE if term.free_symbols <= {BOUND} else MAX_DEGREE_OF_MANY
    polynomial = term.is_polynomial(BOUND) and sympy.degree(term, BOUND) <= degree
    if first.is_Integer and polynomial and last.is_polynomial():
        return sympy.expand(sympy.summation(term, (BOUND, first, last)))
    return sympy.Function("sum")(term, first, last)


def product(reader: Expressions) -> Any:
    r"""\prod_{k=a}^{b} term."""
    name, first, last, tokens, term = indexed(reader)
    if first.is_Integer and last.is_Integer:
        return sympy.Mul(*terms(reader, name, first, last, tokens))
    return sympy.Function("product")(term, first, last)


def limit(reader: Expressions) -> Any:
    r"""\lim_{x \to a} term, of a smooth function of x alone, checked by numbers near a."""
    name, arrow, *target = bounds(reader).get("_", []) + [""] * 2
    if not is_name(name) or arrow != r"\to":
        raise Unread("limit")
    point = reader.inner(target[:-2])
    term = body(reader, name, REAL)
    functions = {type(call) for call in term.atoms(sympy.Function)}
    if term.free_symbols - {REAL} or not functions <= SMOOTH or not point.is_extended_real:
        raise Unread("limit of an unknown function")
    sides = {sympy.limit(term, REAL, point, side) for side in ("+", "-")}
    value = sides.pop()
    if sides or not (value.is_number and value.is_finite and approached(term, point, value)):
        raise Unread("no limit")
    return value


def approached(term: Any, point: Any, value: Any) -> bool:
    """Whether a function nears a value as its argument nears a point."""
    for side in (1, -1) if point.is_finite else (1,):
        near, nearer = (
            point + side * step if point.is_finite else sympy.sign(point) / step
            for step in (NEAR, NEARER)
        )
        gaps = [abs((term - value).evalf(DIGITS, subs={REAL: x})) for x in (near, nearer)]
        if not all(gap.is_comparable for gap in gaps):
            return False
        if gaps[1] > gaps[0] / 10 + sympy.Rational(1, 10**30) or gaps[1] > (1 + abs(value)) / 100:
            return False
    return True


def integral(reader: Expressions) -> Any:
    r"""\int_a^b polynomial dx."""
    limits = bounds(reader)
    if limits.keys() != {"_", "^"}:
        raise Unread("integral without bounds")
    start, depth = reader.at, 0
    for at in range(start, len(reader.tokens)):
        depth += bracket_step(reader.tokens[at])
        name, after = differential(reader.tokens, at)
        if depth == 0 and name:
            break
    else:
        raise Unread("integral without a variable")
    reader.at = after
    term = reader.inner(reader.tokens[start:at] or ["1"], {name: BOUND})
    if not term.is_polynomial(BOUND) or sympy.degree(term, BOUND) > MAX_DEGREE:
        raise Unread("integral")
    ends = [reader.inner(limits[sign]) for sign in ("_", "^")]
    return sympy.integrate(sympy.expand(term), (BOUND, *ends))


def differential(tokens: list[str], at: int) -> tuple[str, int]:
    """The name behind a d that stands here, and the place after it; "" if there is none."""
    token = tokens[at]
    if token == "d" and is_name("".join(tokens[at + 1 : at + 2])):
        return tokens[at + 1], at + 2
    return (token[1], at + 1) if len(token) == 2 and token[0] == "d" else ("", at)


def derivative(reader: Expressions) -> Any:
    r"""The symbol for \frac{dy}{dx} and \frac{d^2 y}{dx^2} behind \frac, or None."""
    start = reader.at
    top, bottom = (lone_letters(reader.group()) for _ in range(2))
    for d in ("d", r"\partial"):
        order = ["^", "2"] if top[1:2] == ["^"] else []
        names = [*top[-1:], *bottom[1:2]]
        shape = top[:-1] == [d, *order] and bottom == [d, *names[1:], *order]
        if shape and len(names) == 2 and all(map(is_name, names)):
            return sympy.Symbol(f"{d}{len(order) // 2 + 1} {names[0]} / {d} {names[1]}")
    reader.at = start
    return None


def lone_letters(tokens: list[str]) -> list[str]:
    """The tokens with words of two letters and groups of one token taken apart."""
    return [t for token in tokens if token not in "{}" for t in letters(token)]


def letters(token: str) -> list[str]:
    """The letters of a word of two."""
    return list(token) if len(token) == 2 and token.isalpha() else [token]


def is_name(token: str) -> bool:
    """Whether this is one letter."""
    return (len(token) == 1 and token.isalpha()) or token[1:] in GREEK
