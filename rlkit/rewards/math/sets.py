r"""Unions, differences and ranges of the real line in one form each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from rlkit.rewards.math.arithmetic import sympy
from rlkit.rewards.math.form import INTERVALS, Form
from rlkit.rewards.math.tokens import Unread

REALS = Form(kind="()", items=(Form(value=-sympy.oo), Form(value=sympy.oo)))


def is_range(form: Form) -> bool:
    """Whether this is an interval, or a pair that is written like one."""
    return form.kind in INTERVALS and len(form.items) == 2


def union(parts: Sequence[Form]) -> Form:
    r"""The union: of sets of elements one set, in which an element stands once."""
    if any(part.kind != "set" for part in parts):
        return Form(kind="union", items=tuple(parts))
    elements = [item for part in parts for item in part.items]
    return Form(kind="set", items=tuple(dict.fromkeys(elements)))


def without(points: Sequence[Any]) -> Form:
    """The real line without some numbers. Raises Unread if they are not real."""
    if not points or not all(p.is_number and p.is_real for p in points):
        raise Unread("no points of the line")
    ends = [-sympy.oo, *sorted(set(points)), sympy.oo]
    return union([Form(kind="()", items=(Form(value=a), Form(value=b))) for a, b in pairwise(ends)])


def combined(ranges: Sequence[Form], words: set[str]) -> Form | None:
    r"""Ranges of one name with "and", "or" or commas between them; None for a mixture of these.

    "and" is the intersection, "or" the union; a comma is "and" unless nothing were left.
    """
    if words == {r"\or"}:
        return replace(union([replace(form, label="") for form in ranges]), label=ranges[0].label)
    if words == {r"\and"}:
        return intersection(ranges)
    if not words <= {",", ";"}:
        return None
    try:
        return intersection(ranges)
    except Unread:
        return combined(ranges, {r"\or"})


def intersection(ranges: Sequence[Form]) -> Form:
    """The common part. Raises Unread if it is empty or the ends cannot be compared."""
    low = max((bound(form, 0) for form in ranges), key=lambda end: (end[0], not end[1]))
    high = min((bound(form, 1) for form in ranges), key=lambda end: (end[0], end[1]))
    if low[0] >= high[0]:
        raise Unread("nothing in common")
    kind = ("[" if low[1] else "(") + ("]" if high[1] else ")")
    return Form(ranges[0].label, kind, (Form(value=low[0]), Form(value=high[0])))


def bound(form: Form, side: int) -> tuple[Any, bool]:
    """An end of a range and whether it belongs to it."""
    value = form.items[side].value
    if value is None or not (value.is_number and value.is_extended_real):
        raise Unread("an end that is no number")
    return value, form.kind[side] in "[]"
