"""Whether two answers are equal: first their kinds, then numbers, then a proof by algebra.

Numbers may refute an equality, but only exact arithmetic or algebra may prove one: what cannot be
proved is not equal.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rlkit.rewards.math.arithmetic import sympy
from rlkit.rewards.math.expression import expression_of
from rlkit.rewards.math.extract import answer_of, at_the_end, last_boxed
from rlkit.rewards.math.forms import read, unnamed
from rlkit.rewards.math.objects import INTERVALS, Form
from rlkit.rewards.math.tokens import MAX_CHARS, Unread, canonical

PLAIN = re.compile(r"-?[0-9]{1,50}(?:\.[0-9]{1,50})?")
ORDERED = ("matrix", "row", "ratio", "named", *INTERVALS)
POINTS = ((31, 17), (59, 23), (163, 29))
"""Points at which expressions are compared numerically: the i-th symbol is (start + i step) /
97."""
DIGITS = 40
REFUTED = 1e-25


def equal(gold: str, answer: str, tolerance: float) -> bool:
    """Whether an answer equals the gold answer, both as texts without a box around them."""
    if max(len(gold), len(answer)) > MAX_CHARS:
        return canonical(gold) == canonical(answer)
    return equal_short(gold, answer, tolerance)


@lru_cache(maxsize=4096)
def equal_short(gold: str, answer: str, tolerance: float) -> bool:
    """The same for texts that are short enough to be read and kept."""
    texts = canonical(gold), canonical(answer)
    if not texts[1]:
        return False
    if texts[0] == texts[1]:
        return True
    if PLAIN.fullmatch(texts[0]) and PLAIN.fullmatch(texts[1]):
        return same_numbers(Fraction(texts[0]), Fraction(texts[1]), tolerance)
    if same_words(*texts):
        return True
    try:
        forms = read(gold), read(answer)
    except Unread:
        return False
    return same(*forms, tolerance)


def same_words(gold: str, answer: str) -> bool:
    """Whether two texts are the same word, up to the case of the first letter."""
    word = len(gold) > 3 and gold.isalpha() and gold[1:].islower()
    return word and gold[1:] == answer[1:] and gold[:1].casefold() == answer[:1].casefold()


@lru_cache(maxsize=1024)
def gold_text(gold: str) -> str:
    """The answer in a gold text: in its box, or all of it, or what a sentence in it states."""
    text = last_boxed(gold)
    try:
        read(gold if text is None else text)
    except Unread:
        text = text or answer_of(gold)
    return gold if text is None else text


def matches(gold: str, text: str, tolerance: float) -> bool:
    """Whether a completion gives the gold answer, where it states one or as its whole text.

    A box may hold a sentence that ends in the answer.
    """
    wanted = gold_text(gold)
    answer = answer_of(text)
    if answer is None:
        return equal(wanted, text, tolerance)
    stated = at_the_end(answer) or answer
    return equal(wanted, answer, tolerance) or equal(wanted, stated, tolerance)


def alike(one: str, other: str, tolerance: float) -> bool:
    """Whether two answers are equal, whichever of them is taken for the gold."""
    return equal(one, other, tolerance) and equal(other, one, tolerance)


def same_numbers(gold: Any, answer: Any, tolerance: float) -> bool:
    """Equal, or within the relative tolerance."""
    return bool(gold == answer) or bool(abs(gold - answer) <= tolerance * abs(gold))


def same(gold: Form, answer: Form, tolerance: float) -> bool:
    """Whether two forms are equal. A name or a unit counts if both have one."""
    if gold.label and answer.label and gold.label != answer.label:
        return same_equations(as_equation(gold), as_equation(answer))
    gold, answer = one_kind(gold, answer)
    if gold.kind != answer.kind:
        return False
    if gold.kind == "value":
        units = gold.unit == answer.unit or not (gold.unit and answer.unit)
        return units and same_values(gold.value, answer.value, tolerance)
    if gold.kind in ("equation", "unequal", "below", "at most"):
        positive = gold.kind in ("below", "at most")
        return proportional(gold.value, answer.value, positive=positive)
    if gold.kind == "numeral":
        return gold.unit == answer.unit
    if gold.kind in ORDERED or is_ordered(gold):
        return in_order(gold.items, answer.items, tolerance)
    return without_order(gold.items, answer.items, tolerance)


def one_kind(gold: Form, answer: Form) -> tuple[Form, Form]:
    """Both forms as one kind, if their two kinds can mean the same.

    x = 3 beside an equation is one; x = 1, y = 2 beside (1, 2) or 1, 2 is its values in order, and
    beside y = 2, x = 1 it is sorted by name; a bare list beside a set is one.
    """
    kinds = {gold.kind, answer.kind}
    if kinds == {"value", "equation"}:
        return as_equation(gold), as_equation(answer)
    if kinds == {"named"}:
        return in_name_order(gold), in_name_order(answer)
    if kinds in ({"named", "list"}, {"named", "()"}):
        return values_of(gold), values_of(answer)
    if kinds == {"list", "set"}:
        return replace(gold, kind="set"), replace(answer, kind="set")
    return gold, answer


def as_equation(form: Form) -> Form:
    """An equation for a value with a name; any other form as it is."""
    if form.kind != "value" or not form.label:
        return form
    try:
        return Form(kind="equation", value=expression_of(form.label) - form.value)
    except Unread:
        return form


def same_equations(gold: Form, answer: Form) -> bool:
    """Whether two answers with different names are one equation: x = 2y and y = x/2."""
    if {gold.kind, answer.kind} != {"equation"}:
        return False
    return proportional(gold.value, answer.value, positive=False)


def in_name_order(form: Form) -> Form:
    """The items sorted by their names."""
    return replace(form, items=tuple(sorted(form.items, key=lambda item: item.label)))


def values_of(form: Form) -> Form:
    """The items without their names, in their order."""
    return Form(kind="named", items=tuple(map(unnamed, form.items)))


def is_ordered(gold: Form) -> bool:
    """Whether the order of a bare list counts: that of three or more unsorted numbers does."""
    values = [item.value for item in gold.items]
    real = all(value is not None and value.is_number and value.is_real for value in values)
    if gold.kind != "list" or len(values) < 3 or not real:
        return False
    return values not in (sorted(values), sorted(values, reverse=True))


def in_order(gold: tuple[Form, ...], answer: tuple[Form, ...], tolerance: float) -> bool:
    """Whether the items are equal one by one."""
    pairs = zip(gold, answer, strict=False)
    return len(gold) == len(answer) and all(same(g, a, tolerance) for g, a in pairs)


def without_order(gold: tuple[Form, ...], answer: tuple[Form, ...], tolerance: float) -> bool:
    """Whether each item has an equal one of its own on the other side."""
    left = list(answer)
    for item in gold:
        found = next((other for other in left if same(item, other, tolerance)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def same_values(gold: Any, answer: Any, tolerance: float) -> bool:
    """Whether two expressions are equal for all values of their symbols."""
    if gold == answer:
        return True
    if gold.is_Rational and answer.is_Rational:
        return same_numbers(gold, answer, tolerance)
    if gold.has(sympy.oo) or answer.has(sympy.oo):
        return False
    if tolerance and gold.is_real and answer.is_real and gold.is_number and answer.is_number:
        return same_numbers(sympy.N(gold, DIGITS), sympy.N(answer, DIGITS), tolerance)
    return not refuted(gold, answer) and is_zero(gold - answer)


def refuted(gold: Any, answer: Any) -> bool:
    """Whether the two differ numerically somewhere."""
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    for start, step in POINTS:
        point = {s: sympy.Rational(start + step * i, 97) for i, s in enumerate(symbols)}
        one, other = (sympy.N(side.subs(point), DIGITS) for side in (gold, answer))
        gap = abs(one - other)
        if gap.is_comparable and gap > REFUTED * abs(one):
            return True
        if not symbols:
            return False
    return False


def is_zero(difference: Any) -> bool:
    """Whether algebra proves that an expression is 0."""
    if sympy.expand(difference) == 0:
        return True
    if difference.is_number:
        return bool(difference.equals(0))
    return bool(sympy.simplify(difference) == 0 or sympy.gammasimp(difference) == 0)


def proportional(gold: Any, answer: Any, *, positive: bool) -> bool:
    """Whether one is a number other than 0 times the other, for all values of their symbols."""
    if gold == 0 or answer == 0 or gold.free_symbols != answer.free_symbols:
        return bool(gold == answer)
    ratio = sympy.simplify(gold / answer)
    return bool(ratio.is_number and (ratio.is_positive or not positive))
