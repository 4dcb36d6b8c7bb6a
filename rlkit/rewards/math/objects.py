"""The typed forms of an answer: what kind of thing a text names, before any value is compared."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from rlkit.rewards.math.expression import expression
from rlkit.rewards.math.tokens import Unread, bracket_step, split
from rlkit.rewards.math.units import split_unit

INTERVALS = ("()", "[]", "(]", "[)")
BASE_WORDS = {
    **{"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9},
    **{"ten": 10, "twelve": 12, "sixteen": 16},
}
NUMERAL = re.compile(r"([0-9][0-9A-Fa-f]*(?:\.[0-9A-Fa-f]+)?)_\{?\(?(?:\\text:)?([0-9a-z]+)\)?\}?")


@dataclass(frozen=True, slots=True)
class Form:
    """An answer: its kind, and what answers of that kind have."""

    label: str = ""
    """The name it was given: x in x = 3."""
    kind: str = "value"
    """value; numeral (digits in a written base); a pair of brackets (tuple, interval); set, union,
    list (bare), named (x = 1, y = 2); ratio, matrix, row; equation, unequal, below, at most."""
    items: tuple[Form, ...] = ()
    value: Any = None
    """Of a value; of an equation or inequality the difference of its sides."""
    unit: str = ""
    """Of a value, in one spelling, "" without; of a numeral its digits and base."""


def flat(form: Form) -> tuple[Form, ...]:
    """The items of a bare list, the first with the list's name; else the answer itself."""
    if form.kind not in ("list", "named"):
        return (form,)
    first, *rest = form.items
    return (replace(first, label=form.label or first.label), *rest)


def read_object(tokens: list[str]) -> Form:
    """An answer without a relation: a set, a tuple, a matrix, a ratio, a numeral or a value."""
    united = split(tokens, (r"\cup",))
    if len(united) > 1:
        return Form(kind="union", items=tuple(read_object(part) for part in united if part))
    if tokens in ([r"\emptyset"], [r"\varnothing"], [r"\{", r"\}"]):
        return Form(kind="set")
    if encloses(tokens):
        bracket, inner = tokens[0] + tokens[-1], tokens[1:-1]
        parts = split(inner, (",",))
        if bracket == r"\{\}":
            return Form(kind="set", items=flat_items(parts))
        if bracket in INTERVALS and len(parts) > 1:
            return Form(kind=bracket, items=tuple(read_object(part) for part in parts))
        if tokens[0].startswith(r"\begin"):
            return Form(kind="matrix", items=tuple(read_row(row) for row in rows_of(inner)))
    ratio = split(tokens, (":",))
    if len(ratio) > 1:
        return Form(kind="ratio", items=tuple(read_value(part) for part in ratio))
    if r"\pm" in tokens:
        return Form(kind="list", items=tuple(read_value(plus_minus(tokens, s)) for s in "+-"))
    numeral = NUMERAL.fullmatch("".join(tokens))
    return read_numeral(numeral) if numeral else read_value(tokens)


def encloses(tokens: list[str]) -> bool:
    """Whether the first token is a bracket that the last one closes."""
    depths = list(accumulate(bracket_step(token) for token in tokens))
    return len(tokens) > 1 and depths[-1] == 0 and 0 not in depths[:-1]


def flat_items(parts: list[list[str]]) -> tuple[Form, ...]:
    """The items of a set; +- stands for two of them."""
    return tuple(item for part in parts for item in flat(read_object(part)))


def rows_of(tokens: list[str]) -> list[list[str]]:
    """The rows of a matrix, without an empty last one."""
    rows = split(tokens, ("\\\\",))
    return rows[:-1] if not rows[-1] else rows


def read_row(tokens: list[str]) -> Form:
    """A row of a matrix."""
    return Form(kind="row", items=tuple(read_value(cell) for cell in split(tokens, ("&",))))


def plus_minus(tokens: list[str], sign: str) -> list[str]:
    """The tokens with one reading of +-."""
    return [sign if token == r"\pm" else token for token in tokens]


def read_numeral(match: re.Match[str]) -> Form:
    """Digits with a base. Raises Unread for digits that the base does not have."""
    digits, written = match[1].lstrip("0").upper() or "0", match[2]
    base = BASE_WORDS.get(written) or (int(written) if written.isdigit() else 0)
    if not 2 <= base <= 36 or any(int(d, 36) >= base for d in digits.replace(".", "")):
        raise Unread("digits beyond the base")
    return Form(kind="numeral", unit=f"{digits} base {base}")


def read_value(tokens: list[str]) -> Form:
    """A number or an expression; x% is x/100; only a number may have a unit."""
    percent = tokens[-1:] == ["%"]
    body, unit = (tokens[:-1], "") if percent else split_unit(tokens)
    if not body:
        raise Unread("empty")
    value = expression(body)
    if (unit or percent) and not value.is_number:
        raise Unread("unit of an expression")
    return Form(kind="value", value=value / 100 if percent else value, unit=unit)
