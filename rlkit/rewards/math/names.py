"""Names in expressions: letters with subscripts, primes and accents, constants, functions."""

from __future__ import annotations

import re
from typing import Any

from rlkit.rewards.math.arithmetic import ACCENTS, CONSTANTS, GREEK, sympy
from rlkit.rewards.math.cursor import Expressions
from rlkit.rewards.math.tokens import Unread

LETTERS = re.compile(r"[A-Za-z]{2}|(?![A-Z]+$)[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{3,4}")
"""Letters side by side that are a product: two, or more that are no word or name of points."""


def read_name(reader: Expressions, token: str) -> Any:
    """A letter with its subscript and primes, or a constant."""
    known = len(token) == 1 and token.isalpha()
    known = known or token.startswith(r"\mathbb") or token[1:] in GREEK or token in CONSTANTS
    if token in ACCENTS:
        token += " " + subscript(reader.raw())
    elif LETTERS.fullmatch(token):
        reader.tokens[reader.at - 1 : reader.at] = list(token)
        return read_name(reader, token[0])
    elif not known or not token:
        raise Unread(f"name {token!r}")
    suffix = "_" + subscript(reader.raw()) if reader.take("_") else ""
    suffix += primes(reader)
    if not suffix and token in reader.scope:
        return reader.scope[token]
    if not suffix and token in CONSTANTS:
        return CONSTANTS[token]
    return applied(reader, token + suffix)


def primes(reader: Expressions) -> str:
    """The primes that stand here, ' or raised."""
    found = ""
    while True:
        if reader.take("'"):
            found += "'"
        elif reader.tokens[reader.at : reader.at + 2] == ["^", r"\prime"]:
            reader.at += 2
            found += "'"
        elif reader.tokens[reader.at : reader.at + 4] == ["^", "{", r"\prime", "}"]:
            reader.at += 4
            found += "'"
        else:
            return found


def applied(reader: Expressions, name: str) -> Any:
    """The symbol of a name, or its value at what stands in a bracket: f(x+1), I(0), x(t).

    A letter other than f and g before a bracket with more than one sign is a factor.
    """
    bracket = reader.tokens[reader.at : reader.at + 3]
    one = len(bracket) == 3 and bracket[0] == "(" and bracket[2] == ")"
    sign = bracket[1] if one else ""
    plain = sign[:1].isdigit() or (len(sign) == 1 and sign.isalpha()) or sign[1:] in GREEK
    if reader.next == "(" and (name in ("f", "g") or plain):
        reader.at += 1
        return sympy.Function(name)(reader.closed(")"))
    return sympy.Symbol(name)


def subscript(raw: str) -> str:
    """A subscript in one spelling: without blanks, braces and backslashes of max and min."""
    bare = re.sub(r"\\(?=(?:max|min)\b)|[ {}]", "", raw)
    return bare if bare else raw
