"""Ranges of the real line, their unions and what they have in common."""

from __future__ import annotations

import pytest

from rlkit.rewards.math.arithmetic import sympy
from rlkit.rewards.math.form import Form
from rlkit.rewards.math.sets import combined, intersection, is_range, union, without
from rlkit.rewards.math.tokens import Unread


def between(low: object, high: object, kind: str = "()") -> Form:
    return Form("x", kind, (Form(value=sympy.sympify(low)), Form(value=sympy.sympify(high))))


def ends(form: Form) -> tuple[object, ...]:
    return (form.kind, *(item.value for item in form.items))


def test_a_range_has_two_ends() -> None:
    assert is_range(between(0, 1, "[)"))
    assert not is_range(Form(kind="()", items=(Form(value=1),) * 3)) and not is_range(Form())


def test_sets_of_elements_unite_to_one_and_others_stay_parts() -> None:
    one, two, three = (Form(value=n) for n in (1, 2, 3))
    sets = Form(kind="set", items=(one, two)), Form(kind="set", items=(two, three))
    assert union(sets) == Form(kind="set", items=(one, two, three))
    parts = (between(0, 1), sets[0])
    assert union(parts) == Form(kind="union", items=parts)


def test_the_line_without_points() -> None:
    found = without([sympy.Integer(2), sympy.Integer(-1), sympy.Integer(2)])
    infinity = sympy.oo
    assert [ends(form) for form in found.items] == [
        ("()", -infinity, -1),
        ("()", -1, 2),
        ("()", 2, infinity),
    ]
    for points in ([], [sympy.I], [sympy.Symbol("a")]):
        with pytest.raises(Unread):
            without(points)


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        (between(0, 5), between(2, 9), ("()", 2, 5)),
        (between(0, 5, "[]"), between(0, 5), ("()", 0, 5)),
        (between(0, 5, "[]"), between(-1, 5, "(]"), ("[]", 0, 5)),
    ],
)
def test_what_ranges_have_in_common(first: Form, second: Form, common: tuple[object, ...]) -> None:
    assert ends(intersection([first, second])) == common == ends(intersection([second, first]))


def test_words_between_ranges() -> None:
    apart, near = [between(0, 1), between(2, 3)], [between(0, 2), between(1, 3)]
    assert combined(near, {r"\or"}) != combined(near, {r"\and"})
    with pytest.raises(Unread):
        combined(apart, {r"\and"})
    assert combined(apart, {","}) == combined(apart, {r"\or"})
    assert combined(near, {","}) == combined(near, {r"\and"})
    assert combined(near, {r"\and", r"\or"}) is None


def test_ends_that_are_no_numbers_are_not_compared() -> None:
    with pytest.raises(Unread):
        intersection([between("a", 1), between(0, 1)])
