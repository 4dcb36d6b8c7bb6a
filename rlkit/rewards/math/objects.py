"""From tokens to what they name when no relation stands between them: sets, tuples, values."""

from __future__ import annotations

import re
from itertools import accumulate

from rlkit.rewards.math.expression import expression
from rlkit.rewards.math.form import INTERVALS, Form, flat
from rlkit.rewards.math.matrices import BEGIN, read_matrix, rows_of
from rlkit.rewards.math.sets import REALS, union, without
from rlkit.rewards.math.tokens import Unread, bracket_step, split
from rlkit.rewards.math.units import split_unit

BASE_WORDS = {
    **{"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9},
    **{"ten": 10, "twelve": 12, "sixteen": 16},
}
REAL_LINE = r"\mathbb{R}"
CHOICES = re.compile(r"(?:\([0-9]{1,2}\)){2,}")
"""Statements by their numbers, (1)(3), which are not a product."""
NUMERAL = re.compile(
    r"\(?([0-9][0-9A-Fa-f]*(?:\.[0-9A-Fa-f]+)?)\)?_\{?\(?(?:\\text:)?([0-9a-z]+)\)?\}?"
)


def read_object(tokens: list[str]) -> Form:
    """An answer without a relation: a set, a tuple, a matrix, a ratio, a numeral or a value."""
    united = split(tokens, (r"\cup",))
    if len(united) > 1:
        return union([read_object(part) for part in united if part])
    if (special := read_set(tokens)) is not None:
        return special
    if encloses(tokens):
        form = read_bracket(tokens[0] + tokens[-1], tokens[1:-1])
        if form is not None:
            return form
    if BEGIN in tokens:
        rows = read_matrix(tokens, expression).tolist()
        return matrix([[Form(value=cell) for cell in row] for row in rows])
    ratio = split(tokens, (":",))
    if len(ratio) > 1:
        return Form(kind="ratio", items=tuple(read_value(part) for part in ratio))
    if r"\pm" in tokens:
        return Form(kind="list", items=tuple(read_value(plus_minus(tokens, s)) for s in "+-"))
    numeral = NUMERAL.fullmatch("".join(tokens))
    return read_numeral(numeral) if numeral else read_value(tokens)


def read_set(tokens: list[str]) -> Form | None:
    r"""The empty set, (1)(3), the real line, or it without numbers; None for anything else."""
    if tokens in ([r"\emptyset"], [r"\varnothing"], [r"\{", r"\}"]):
        return Form(kind="set")
    if CHOICES.fullmatch("".join(tokens)):
        return Form(kind="set", items=tuple(Form(value=expression([n])) for n in tokens[1::3]))
    if tokens == [REAL_LINE]:
        return REALS
    if tokens[:2] not in ([REAL_LINE, r"\setminus"], [REAL_LINE, "-"]):
        return None
    left = read_object(tokens[2:])
    if left.kind != "set" or any(item.value is None for item in left.items):
        raise Unread("difference")
    return without([item.value for item in left.items])


def read_bracket(bracket: str, inner: list[str]) -> Form | None:
    """What brackets around all tokens make of them; None if they only group."""
    separators = [sign for sign in (",", ";") if len(split(inner, (sign,))) > 1]
    parts = split(inner, tuple(separators) or (",",))
    if len(separators) > 1 and (bracket == r"\{\}" or bracket in INTERVALS):
        raise Unread("commas and semicolons")
    if bracket == r"\{\}":
        return Form(kind="set", items=flat_items(parts))
    if bracket in INTERVALS and len(parts) > 1:
        return Form(kind=bracket, items=tuple(read_object(part) for part in parts))
    if bracket.startswith(BEGIN):
        cells = [[read_value(cell) for cell in split(row, ("&",))] for row in rows_of(inner)]
        return matrix(cells)
    return read_object(inner) if BEGIN in inner and bracket in INTERVALS else None


def matrix(cells: list[list[Form]]) -> Form:
    """A matrix of its cells, row by row."""
    rows = (Form(kind="row", items=tuple(row)) for row in cells)
    return Form(kind="matrix", items=tuple(rows))


def encloses(tokens: list[str]) -> bool:
    """Whether the first token is a bracket that the last one closes."""
    depths = list(accumulate(bracket_step(token) for token in tokens))
    return len(tokens) > 1 and depths[-1] == 0 and 0 not in depths[:-1]


def flat_items(parts: list[list[str]]) -> tuple[Form, ...]:
    """The items of a set; +- stands for two of them."""
    return tuple(item for part in parts for item in flat(read_object(part)))


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
    if unit and len(tokens[-1]) == 2 and not value.is_number:
        value, unit = expression(tokens), ""
    if (unit or percent) and not value.is_number:
        raise Unread("unit of an expression")
    return Form(kind="value", value=value / 100 if percent else value, unit=unit)
