"""From a text to the typed form of its answer: lists, named answers, relations."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate

from rlkit.rewards.math.arithmetic import GREEK, sympy
from rlkit.rewards.math.objects import (
    INTERVALS,
    Form,
    encloses,
    flat,
    read_object,
    read_value,
)
from rlkit.rewards.math.tokens import Unread, clean, split, tokenize
from rlkit.rewards.math.units import NEVER

OPEN = ("<", ">", r"\le", r"\ge")
FLIPPED = {">": "<", r"\ge": r"\le"}
RELATIONS = ("=", r"\ne", r"\in", r"\equiv", *OPEN)
SEPARATORS = (";", r"\and", r"\or")
SYMBOL = rf"(?:[A-Za-z]|\\(?:{'|'.join(sorted(GREEK))}))(?: _ (?:\{{[^{{}}=]*\}}|\S+))?(?: ')*"
CAPITALS = rf"(?:[A-Z]{{1,2}}|{SYMBOL}|\\frac \{{ [A-Z]+ \}} \{{ [A-Z]+ \}})"
LABEL = re.compile(
    rf"{SYMBOL}(?: \^ \{{ - 1 \}})?(?: \( (?:{SYMBOL}|[0-9]+)(?: , (?:{SYMBOL}|[0-9]+))* \))?"
    rf"|\( {SYMBOL}(?: , {SYMBOL})+ \)|\| [A-Z]+ \||{CAPITALS}(?: : {CAPITALS})?"
    r"|(?:\\angle |\\triangle )?(?:[A-Z] ?){1,3}|\\overline \{ [A-Z]+ \}|\\text:[A-Za-z ]+"
)


@lru_cache(maxsize=4096)
def read(text: str) -> Form:
    """The form of an answer. Raises Unread."""
    tokens = tokenize(clean(text))
    while len(tokens) > 2 and tokens[0] == "{" and encloses(tokens):
        tokens = tokens[1:-1]
    return read_list(tokens[:-1] if tokens[-1:] in ([","], [";"]) else tokens)


def read_list(tokens: list[str]) -> Form:
    """Answers with ;, "and", "or" or commas between them, else one answer."""
    groups = split(tokens, SEPARATORS)
    forms = [read_commas(group[:-1] if group[-1:] == [","] else group) for group in groups]
    if len(forms) == 1:
        return forms[0]
    if all(form.kind == "named" for form in forms):
        return Form(kind="list", items=tuple(forms))
    labels = {form.label for form in forms}
    if r"\or" in tokens and len(labels) == 1 and "" not in labels and all(map(is_range, forms)):
        return Form(labels.pop(), "union", tuple(map(unnamed, forms)))
    return listed([item for form in forms for item in flat(form)])


def read_commas(tokens: list[str]) -> Form:
    """Answers with commas between them, else one answer."""
    parts = split(tokens, (",",))
    if len(parts) == 1:
        return read_one(tokens)
    return listed([item for part in parts for item in flat(read_one(part))])


def unnamed(form: Form) -> Form:
    """The same answer without its name."""
    return replace(form, label="")


def is_range(form: Form) -> bool:
    """Whether this is written like an interval."""
    return form.kind in INTERVALS


def listed(items: list[Form]) -> Form:
    """A bare list; "named" if each item has its own name. n = 1, 2 is a list called n.

    A point that is listed twice is listed once; a number that is listed twice stays so.
    """
    labels = [item.label for item in items]
    names = {*labels} - {""}
    if all(labels) and len(names) == len(items):
        return Form(kind="named", items=tuple(items))
    if len(names) > 1 or (names and not labels[0]):
        raise Unread("names of some items only")
    once = [item for i, item in enumerate(items) if item.kind == "value" or item not in items[:i]]
    return Form(labels[0], "list", tuple(map(unnamed, once)))


def read_one(tokens: list[str]) -> Form:
    """One answer: a relation or an object. What follows an approximate sign is dropped."""
    exact, *approximate = split(tokens, (r"\approx",))
    if approximate:
        tokens = [*exact, "=", *approximate[0]] if is_label(exact) else exact or approximate[0]
    parts = split(tokens, RELATIONS)
    signs = signs_between(tokens, parts)
    if not all(parts):
        raise Unread("empty")
    if not signs:
        return read_object(tokens)
    if {*signs} == {"="}:
        return read_equation(parts)
    if signs == [r"\in"] and is_label(parts[0]):
        within = read_object(parts[1])
        if within.kind == "value":
            raise Unread("no set")
        return replace(within, label=name_of(parts[0]))
    return read_inequality(parts, signs)


def signs_between(tokens: list[str], parts: list[list[str]]) -> list[str]:
    """The separators that stood between the parts."""
    ends = accumulate(len(part) + 1 for part in parts[:-1])
    return [tokens[end - 1] for end in ends]


def read_equation(parts: list[list[str]]) -> Form:
    """x = 3 is 3 with a name; 1 + 2 = 3 is 3 if it is true; other equations stay equations."""
    if is_label(parts[0]):
        *middle, last = (read_object(part) for part in parts[1:])
        if any(not same_number(form, last) for form in middle):
            raise Unread("sides that differ")
        return replace(last, label=name_of(parts[0]))
    sides = [read_value(part) for part in parts]
    if all(side.value.is_number for side in sides):
        if any(not same_number(side, sides[-1]) for side in sides):
            raise Unread("sides that differ")
        return sides[-1]
    if len(sides) > 2:
        raise Unread("several equations in one")
    return Form(kind="equation", value=sides[0].value - sides[1].value)


def same_number(first: Form, second: Form) -> bool:
    """Whether two sides are constants that are certainly equal."""
    values = (first.value, second.value)
    constants = all(value is not None and value.is_number for value in values)
    return constants and bool((values[0] - values[1]).equals(0))


def read_inequality(parts: list[list[str]], signs: list[str]) -> Form:
    """x < 3 and 1 <= x < 3 as intervals with a name, others as the difference of their sides."""
    if any(sign not in OPEN for sign in signs):
        if signs != [r"\ne"]:
            raise Unread("relation")
        return Form(kind="unequal", value=read_value(parts[0]).value - read_value(parts[1]).value)
    if signs[0] in (">", r"\ge"):
        parts, signs = parts[::-1], [FLIPPED.get(sign, "") for sign in signs[::-1]]
    if any(sign not in ("<", r"\le") for sign in signs) or len(parts) > 3:
        raise Unread("inequalities of two directions")
    brackets = ["" if sign == "<" else "=" for sign in signs]
    infinite = Form(kind="value", value=sympy.oo)
    if len(parts) == 3 and is_label(parts[1]):
        low, high = read_value(parts[0]), read_value(parts[2])
        kind = ("[" if brackets[0] else "(") + ("]" if brackets[1] else ")")
        return Form(name_of(parts[1]), kind, (low, high))
    if len(parts) == 2 and is_label(parts[0]) and not is_label(parts[1]):
        kind = "(]" if brackets[0] else "()"
        minus = replace(infinite, value=-sympy.oo)
        return Form(name_of(parts[0]), kind, (minus, read_value(parts[1])))
    if len(parts) == 2 and is_label(parts[1]) and not is_label(parts[0]):
        return Form(
            name_of(parts[1]), "[)" if brackets[0] else "()", (read_value(parts[0]), infinite)
        )
    if len(parts) == 2:
        difference = read_value(parts[0]).value - read_value(parts[1]).value
        return Form(kind="at most" if brackets[0] else "below", value=difference)
    raise Unread("inequality")


def is_label(tokens: list[str]) -> bool:
    """Whether this names a quantity: x, a_n, f(x), (x, y), |AB|, V_1:V_2."""
    text = " ".join(tokens)
    refused = tokens in (["e"], ["i"]) or NEVER & {*text.lower().removeprefix("\\text:").split()}
    return not refused and LABEL.fullmatch(text) is not None


def name_of(tokens: list[str]) -> str:
    """A label in one spelling."""
    return " ".join(tokens).replace("\\text:", "").replace("{ ", "").replace(" }", "")
