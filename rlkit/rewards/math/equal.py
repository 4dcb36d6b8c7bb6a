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
from rlkit.rewards.math.form import INTERVALS, Form, unnamed
from rlkit.rewards.math.forms import read
from rlkit.rewards.math.prose import announced
from rlkit.rewards.math.tokens import MAX_CHARS, Unread, canonical

PLAIN = re.compile(r"-?[0-9]{1,50}(?:\.[0-9]{1,50})?")
WORDS = re.compile(r"[A-Za-z][a-z]+(?: [a-z]+)*")
ORDERED = ("matrix", "row", "ratio", "named", *INTERVALS)
RELATIONS = ("equation", "below", "at most")
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
    if same_words(*texts) or all(len(text) > 2 and text.isalpha() for text in texts):
        return same_words(*texts)
    try:
        forms = read(gold), read(answer)
    except Unread:
        return False
    return same(*forms, tolerance)


def same_words(gold: str, answer: str) -> bool:
    """Whether two texts are the same words, up to the case of the first letter."""
    word = (len(gold) > 3 or gold.lower() in ("yes", "no")) and WORDS.fullmatch(gold)
    return bool(word) and gold[1:] == answer[1:] and gold[:1].casefold() == answer[:1].casefold()


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
        return equal(wanted, text.strip().removeprefix("**").removesuffix("**"), tolerance)
    said = at_the_end(answer) or announced(answer) or answer
    return equal(wanted, answer, tolerance) or equal(wanted, said, tolerance)


def alike(one: str, other: str, tolerance: float) -> bool:
    """Whether two answers are equal, whichever of them is taken for the gold."""
    return equal(one, other, tolerance) and equal(other, one, tolerance)


def same_numbers(gold: Any, answer: Any, tolerance: float) -> bool:
    """Equal, or within the relative tolerance."""
    return bool(gold == answer) or bool(abs(gold - answer) <= tolerance * abs(gold))


def same(gold: Form, answer: Form, tolerance: float) -> bool:
    """Whether two forms are equal. A name or a unit counts if both have one."""
    gold, answer = with_names(gold), with_names(answer)
    if gold.label and answer.label and gold.label != answer.label:
        return same_relations(as_relation(gold), as_relation(answer))
    gold, answer = one_kind(gold, answer)
    if gold.kind != answer.kind:
        return False
    if gold.kind == "value":
        return same_quantities(gold, answer, tolerance)
    if gold.kind in ("unequal", *RELATIONS):
        positive = gold.kind in ("below", "at most")
        return proportional(gold.value, answer.value, positive=positive)
    if gold.kind == "residue":
        return gold.unit == answer.unit and same_values(gold.value, answer.value, 0.0)
    if gold.kind == "numeral":
        return gold.unit == answer.unit
    if gold.kind in ORDERED or gold.kind.startswith("chain") or is_ordered(gold):
        return in_order(gold.items, answer.items, tolerance)
    return without_order(gold.items, answer.items, tolerance)


def same_quantities(gold: Form, answer: Form, tolerance: float) -> bool:
    """Whether two values are equal, of one unit if both have one; 30 degrees are 30 and pi/6."""
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    one_angle = {gold.unit, answer.unit} == {"deg", ""}
    if not (one_angle and gold.value.has(sympy.pi)) and same_values(
        gold.value, answer.value, tolerance
    ):
        return True
    radians = [form.value * (sympy.pi / 180 if form.unit else 1) for form in (gold, answer)]
    return one_angle and same_values(radians[0], radians[1], tolerance)


def one_kind(gold: Form, answer: Form) -> tuple[Form, Form]:
    """Both forms as one kind, if their two kinds can mean the same.

    x = 3 beside an equation is one; x = 1, y = 2 beside (1, 2) or 1, 2 is its values in order, and
    beside y = 2, x = 1 it is sorted by name; a bare list beside a set is one.
    """
    kinds = {gold.kind, answer.kind}
    if kinds & {*RELATIONS}:
        return as_relation(gold), as_relation(answer)
    if kinds == {"named"}:
        return in_name_order(gold), in_name_order(answer)
    if kinds in ({"named", "list"}, {"named", "()"}):
        return values_of(gold), values_of(answer)
    if kinds == {"list", "set"}:
        return replace(gold, kind="set"), replace(answer, kind="set")
    if kinds == {"matrix", "[]"}:
        return as_matrix(gold), as_matrix(answer)
    if kinds == {"unequal", "union"} and all(form.items for form in (gold, answer)):
        return replace(gold, kind="union"), replace(answer, kind="union")
    return gold, answer


def as_matrix(form: Form) -> Form:
    """[[1, 2], [3, 4]] as a matrix; any other form as it is."""
    if form.kind != "[]" or any(item.kind != "[]" for item in form.items):
        return form
    rows = tuple(replace(item, kind="row") for item in form.items)
    return replace(form, kind="matrix", items=rows)


def with_names(form: Form) -> Form:
    """(x, y) = (1, 2) as x = 1, y = 2; any other form as it is."""
    names = form.label.removeprefix("( ").removesuffix(" )").split(" , ")
    if form.kind != "()" or form.label[:1] != "(" or len({*names}) != len(form.items):
        return form
    pairs = zip(names, form.items, strict=True)
    return Form(kind="named", items=tuple(replace(item, label=name) for name, item in pairs))


def as_relation(form: Form) -> Form:
    """An equation for x = 3 and an inequality for x < 3; any other form as it is."""
    try:
        if form.kind == "value" and form.label:
            return Form(kind="equation", value=expression_of(form.label) - form.value)
        if form.kind in INTERVALS and form.label and len(form.items) == 2:
            return as_inequality(form)
    except Unread:
        pass
    return form


def as_inequality(form: Form) -> Form:
    """The difference of the sides of a range with a name and one end; others as they are."""
    low, high = (item.value for item in form.items)
    name = expression_of(form.label)
    if low == -sympy.oo and high is not None and high != sympy.oo:
        return Form(kind="at most" if form.kind[1] == "]" else "below", value=name - high)
    if high == sympy.oo and low is not None and low != -sympy.oo:
        return Form(kind="at most" if form.kind[0] == "[" else "below", value=low - name)
    return form


def same_relations(gold: Form, answer: Form) -> bool:
    """Whether two answers with different names are one relation: x = 2y and y = x/2."""
    if gold.kind != answer.kind or gold.kind not in RELATIONS:
        return False
    return proportional(gold.value, answer.value, positive=gold.kind != "equation")


def in_name_order(form: Form) -> Form:
    """The items sorted by their names."""
    return replace(form, items=tuple(sorted(form.items, key=lambda item: item.label)))


def values_of(form: Form) -> Form:
    """The items without their names: in their order, letters in the order of the alphabet."""
    letters = form.kind == "named" and all(len(item.label) == 1 for item in form.items)
    ordered = in_name_order(form) if letters else form
    return Form(kind="named", items=tuple(map(unnamed, ordered.items)))


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
