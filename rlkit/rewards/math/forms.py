"""From a text to the typed form of its answer: lists, named answers, relations."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate

from rlkit.rewards.math.arithmetic import ACCENTS, GREEK, sympy
from rlkit.rewards.math.congruences import MOD, read_congruence
from rlkit.rewards.math.form import Form, flat, unnamed
from rlkit.rewards.math.matrices import with_determinants
from rlkit.rewards.math.objects import encloses, read_object, read_value
from rlkit.rewards.math.sets import combined, is_range, without
from rlkit.rewards.math.tokens import Unread, clean, split, tokenize
from rlkit.rewards.math.units import NEVER

OPEN = ("<", ">", r"\le", r"\ge")
FLIPPED = {">": "<", r"\ge": r"\le"}
RELATIONS = ("=", r"\ne", r"\in", r"\equiv", *OPEN)
SEPARATORS = (";", r"\and", r"\or", "&")
ACCENTED = rf"(?:{'|'.join(map(re.escape, ACCENTS))}) (?:\{{ [^{{}}=]* \}}|\S+)"
LETTER = rf"(?:[A-Za-z]|\\(?:{'|'.join(sorted(GREEK))})|{ACCENTED})"
SYMBOL = rf"(?:\\Delta )?{LETTER}(?: _ (?:\{{[^{{}}=]*\}}|\S+))?(?: ')*"
CAPITALS = rf"(?:[A-Z]{{1,2}}|{SYMBOL}|\\frac \{{ [A-Z]+ \}} \{{ [A-Z]+ \}})"
LABEL = re.compile(
    rf"{SYMBOL}(?: \^ \{{ - 1 \}})?(?: \( (?:{SYMBOL}|[0-9]+)(?: , (?:{SYMBOL}|[0-9]+))* \))?"
    rf"|\( {SYMBOL}(?: , {SYMBOL})+ \)|\| [A-Z]+ \||{CAPITALS}(?: : {CAPITALS})?"
    rf"|\\begin\{{pmatrix\}} {SYMBOL}(?: \\\\ {SYMBOL})+ \\end\{{pmatrix\}}"
    r"|\\d(?:et|im) (?:[A-Z]|\( [A-Z] \))"
    r"|(?:\\angle |\\triangle )?(?:[A-Z] ?){1,3}|\\overline \{ [A-Z]+ \}|\\text:[A-Za-z ]+"
)


@lru_cache(maxsize=4096)
def read(text: str) -> Form:
    """The form of an answer. Raises Unread."""
    tokens = with_determinants(tokenize(clean(text)))
    while len(tokens) > 2 and tokens[0] == "{" and encloses(tokens):
        tokens = tokens[1:-1]
    tokens = tokens[1:] if tokens[:1] == ["="] else tokens
    return read_list(tokens[:-1] if tokens[-1:] in ([","], [";"]) else tokens)


def read_list(tokens: list[str]) -> Form:
    """Answers with ;, "and", "or" or commas between them, else one answer."""
    if MOD in tokens:
        name, classes = read_congruence(tokens)
        if name and not is_label(name):
            raise Unread("congruence of an expression")
        return replace(classes, label=name_of(name))
    if (ranges := read_ranges(tokens)) is not None:
        return ranges
    groups = split(tokens, SEPARATORS)
    forms = [read_commas(group[:-1] if group[-1:] == [","] else group) for group in groups]
    if len(forms) == 1:
        return forms[0]
    if all(form.kind == "named" for form in forms):
        return Form(kind="list", items=tuple(forms))
    form = listed([item for form in forms for item in flat(form)])
    if form.kind == "named" and r"\or" in tokens:
        raise Unread("one of several names")
    return form


def read_ranges(tokens: list[str]) -> Form | None:
    """Several ranges of one name as one or as a union; None for anything else."""
    separators = (",", *SEPARATORS)
    parts = [part for part in split(tokens, separators) if part]
    if len(parts) < 2 or not all({*part} & {*OPEN} for part in parts):
        return None
    forms = [read_one(part) for part in parts]
    words = {*split_words(tokens, separators)}
    words -= {","} if len(words) > 1 else set()
    if not all(map(is_range, forms)) or {form.label for form in forms} != {forms[0].label}:
        return None
    return combined(forms, words) if forms[0].label else None


def split_words(tokens: list[str], separators: tuple[str, ...]) -> list[str]:
    """The separators that stand outside every bracket."""
    return signs_between(tokens, split(tokens, separators))


def read_commas(tokens: list[str]) -> Form:
    """Answers with commas between them, else one answer."""
    parts = split(tokens, (",",))
    if len(parts) == 1:
        return read_one(tokens)
    return listed([item for part in parts for item in flat(read_one(part))])


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
        return read_unequal(*parts)
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
    return Form(kind="chain " + " ".join(signs), items=tuple(map(read_value, parts)))


def read_unequal(left: list[str], right: list[str]) -> Form:
    """Two sides that differ; of a name and a number also what is left of the line."""
    sides = [read_value(left).value, read_value(right).value]
    form = Form(kind="unequal", value=sides[0] - sides[1])
    names, numbers = (left, sides[1]) if is_label(left) else (right, sides[0])
    if is_label(names) and numbers.is_number and numbers.is_real:
        return replace(form, items=without([numbers]).items)
    return form


def is_label(tokens: list[str]) -> bool:
    """Whether this names a quantity: x, a_n, f(x), (x, y), |AB|, V_1:V_2."""
    text = " ".join(tokens)
    refused = tokens in (["e"], ["i"]) or NEVER & {*text.lower().removeprefix("\\text:").split()}
    return not refused and LABEL.fullmatch(text) is not None


def name_of(tokens: list[str]) -> str:
    """A label in one spelling."""
    return " ".join(tokens).replace("\\text:", "").replace("{ ", "").replace(" }", "")
