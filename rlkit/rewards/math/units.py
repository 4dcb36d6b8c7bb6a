r"""Units after a number: which words count as one, and which never do.

A unit is a known abbreviation (bare or in \text{}) or, in \text{} only, a plain noun. One bare
letter is never a unit: 2t is 2 times t.
"""

from __future__ import annotations

import re

from rlkit.rewards.math.tokens import FUNCTIONS, words_of

ALIASES = {
    "centimeter": "cm",
    "centimetre": "cm",
    "millimeter": "mm",
    "millimetre": "mm",
    "kilometer": "km",
    "kilometre": "km",
    "meter": "m",
    "metre": "m",
    "gram": "g",
    "kilogram": "kg",
    "hour": "h",
    "hr": "h",
    "minute": "min",
    "second": "s",
    "sec": "s",
    "inche": "in",
    "inch": "in",
    "feet": "ft",
    "foot": "ft",
    "yard": "yd",
    "pound": "lb",
    "ounce": "oz",
    "dollar": "$",
    "usd": "$",
    "degree": "deg",
    "mph": "mile per h",
    "liter": "L",
    "litre": "L",
    "newton": "N",
    "joule": "J",
    "watt": "W",
    "volt": "V",
}
SHORT = words_of("m g s h N J W V A L C F Hz kHz Pa kPa kW kg")
"""Abbreviations that are units inside \\text{} only."""
BARE = words_of(
    "cm mm km nm kg mg mL ml ft yd lb oz Hz kHz MHz Pa kPa kW kJ mph min sec hr mi inch inches "
    "feet foot mile miles meter meters metre metres centimeter centimeters gram grams hour "
    "hours minute minutes second seconds day days week weeks month months year years dollar "
    "dollars cent cents degree degrees unit units pound pounds"
)
"""Words that are units also without \\text{}."""
NEVER = words_of(
    "hundred thousand million billion trillion quadrillion dozen score gross half halves third "
    "thirds quarter quarters fourth tenth tenths hundredth hundredths thousandth percent "
    "percentage pct point points base mod modulo and not none for if when where plus minus "
    "times over squared cubed root more less than about least most only except unless without "
    "factorial negative power infinity approximately thousands millions nor either both double "
    "triple twice kilo mega giga milli micro nano remainder divided multiplied "
    "is are was be wrong incorrect false maybe perhaps possibly cannot unknown guess prime "
    "repeating recurring reciprocal inverse root opposite"
)
"""Words that change a value, and so are not units."""
WORDS = re.compile(r"[A-Za-z]+(?:[ /][A-Za-z]+){0,3}")


def is_unit(tokens: list[str]) -> bool:
    """Whether these tokens are one word, or one text, that names a unit."""
    token = "".join(tokens)
    if not token.startswith("\\text:"):
        return token in BARE
    words = token[len("\\text:") :].strip(" .")
    if words in SHORT or words in BARE:
        return True
    long = [word for word in re.split("[ /]", words) if len(word) > 2]
    refused = any(word.lower() in NEVER for word in words.split())
    return bool(WORDS.fullmatch(words)) and bool(long) and not refused


def unit_name(token: str) -> str:
    """A unit in the spelling in which two units are compared: singular, abbreviated, no case."""
    words = token.removeprefix("\\text:").strip(" .")
    if words in SHORT:
        return words
    singular = [w[:-1] if len(w) > 2 and w.endswith("s") else w for w in words.lower().split()]
    return " ".join(ALIASES.get(word, word) for word in singular)


def split_unit(tokens: list[str]) -> tuple[list[str], str]:
    """The tokens without a unit, and the unit in one spelling; "" if there is none.

    A sign of money stands before a number; degrees, words and their powers after it. The degrees of
    an angle inside sin(...) are not a unit of the whole.
    """
    if tokens[:1] == [r"\$"] or tokens[:2] == ["-", r"\$"]:
        return [token for token in tokens if token != r"\$"], "$"
    for degrees in (["^", r"\circ"], ["^", "{", r"\circ", "}"]):
        angle = not any(token[1:] in FUNCTIONS for token in tokens)
        if angle and tokens[-len(degrees) :] == degrees:
            return tokens[: -len(degrees)], "deg"
    for power in ("2", "3"):
        for raised in (["^", power], ["^", "{", power, "}"]):
            body = tokens[: -len(raised)]
            if tokens[-len(raised) :] == raised and is_unit(body[-1:]):
                return body[:-1], unit_name(body[-1]) + power
    return (tokens[:-1], unit_name(tokens[-1])) if is_unit(tokens[-1:]) else (tokens, "")
