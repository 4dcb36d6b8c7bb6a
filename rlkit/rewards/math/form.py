"""The typed form of an answer: what kind of thing a text names, before any value is compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

INTERVALS = ("()", "[]", "(]", "[)")


@dataclass(frozen=True, slots=True)
class Form:
    """An answer: its kind, and what answers of that kind have."""

    label: str = ""
    """The name it was given: x in x = 3."""
    kind: str = "value"
    """value; numeral (digits in a written base); a pair of brackets (tuple, interval); set, union,
    list (bare), named (x = 1, y = 2); ratio, matrix, row, residue; equation, unequal, below, at
    most; chain with its signs (0 < f(x) - x < 1)."""
    items: tuple[Form, ...] = ()
    """Its parts; of x != 3 the ranges on both sides."""
    value: Any = None
    """Of a value or residue; of an equation or inequality the difference of its sides."""
    unit: str = ""
    """Of a value, in one spelling, "" without; of a numeral its digits and base; of a residue its
    modulus."""


def flat(form: Form) -> tuple[Form, ...]:
    """The items of a bare list, the first with the list's name; else the answer itself."""
    if form.kind not in ("list", "named"):
        return (form,)
    first, *rest = form.items
    return (replace(first, label=form.label or first.label), *rest)


def unnamed(form: Form) -> Form:
    """The same answer without its name."""
    return replace(form, label="")
