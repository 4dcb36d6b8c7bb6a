r"""Units after a number: which words count as one, and which never do.

A unit is a known abbreviation (bare or in \text{}) or, in \text{} only, a plain noun. One bare
letter is never a unit: 2t is 2 times t.
"""

from __future__ import annotations

import re

from rlkit.rewards.math.spellings import FUNCTIONS, words_of

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
    "mi": "mile",
    "liter": "L",
    "litre": "L",
    "newton": "N",
    "joule": "J",
    "watt": "W",
    "volt": "V",
}
SHORT = words_of(
    "m g s h N J W V A L C F Hz kHz Pa kPa kW kg eV keV MeV GeV kN MN mN MPa GPa MW GW mW kV mV mA "
    "kJ MJ dB nF pF pm Wb rad mol"
)
"""Abbreviations that are units inside \\text{} only."""
FACTORS = SHORT | words_of("K T erg dyn")
"""Abbreviations that are units as one of several factors."""
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
    "repeating recurring reciprocal inverse root opposite fourths fifth fifths sixth sixths "
    "seventh sevenths eighth eighths ninth ninths twelfth twelfths tens hundreds dozens billions "
    "trillions lakh lakhs crore crores binary ternary octal hexadecimal decimal choose fold too "
    "short off them or to through others another sum product"
)
"""Words that change a value, and so are not units."""
MEASURE = re.compile(r"(square|sq|cubic|cu)\.? (?=[a-z])", re.I)
JOINTS = ("/", "*", r"\cdot")
PIECE = re.compile(r" ?([/*])? ?([A-Za-z]+)(?:\^(-?[1-9]))?")
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
    if measure := MEASURE.match(words):
        return unit_name(words[measure.end() :]) + ("2" if measure[1][0] in "sS" else "3")
    if factors := product_of(words.replace("mph", "miles per hour")):
        return factors
    singular = [w[:-1] if len(w) > 2 and w.endswith("s") else w for w in words.lower().split()]
    return " ".join(ALIASES.get(word, word) for word in singular)


def product_of(text: str) -> str:
    """The one spelling of a product of known units, such as m/s^2 or miles per hour; else ""."""
    text = text.replace(" per ", "/")
    powers: dict[str, int] = {}
    at = pieces = 0
    while piece := PIECE.match(text, at):
        sign = -1 if piece[1] == "/" else 1
        single = piece[2][:-1] if len(piece[2]) > 2 and piece[2].endswith("s") else piece[2]
        if piece[2] not in FACTORS | BARE and single not in ALIASES:
            return ""
        name = piece[2] if piece[2] in FACTORS else ALIASES.get(single.lower(), single.lower())
        powers[name] = powers.get(name, 0) + sign * int(piece[3] or 1)
        at, pieces = piece.end(), pieces + 1
    if at < len(text) or pieces < 2:
        return ""
    return " ".join(name + ("" if n == 1 else str(n)) for name, n in sorted(powers.items()) if n)


def split_product(tokens: list[str]) -> tuple[list[str], str]:
    r"""The tokens without a product of units at their end, and that in one spelling; else "".

    It begins with a unit in \text{}, or with a word that is one without it and a slash.
    """
    start = next((i for i, token in enumerate(tokens) if is_first(token)), len(tokens))
    words = []
    for token in tokens[start:]:
        words.append("*" if token in JOINTS[1:] else token.removeprefix("\\text:"))
    text = re.sub(r" *([\^*/]) *", r"\1", " ".join(words)).replace("{", "").replace("}", "")
    text = re.sub(r"\^ *(-?) *(?=[0-9])", r"^\1", " ".join(text.split()))
    bare = bool(tokens[start:]) and tokens[start] in BARE and tokens[start + 1 : start + 2] != ["/"]
    unit = "" if bare or not start else product_of(text)
    return (tokens[:start], unit) if unit else (tokens, "")


def is_first(token: str) -> bool:
    """Whether a product of units may begin here."""
    return token in BARE or token.startswith("\\text:")


def split_unit(tokens: list[str]) -> tuple[list[str], str]:
    """The tokens without a unit, and the unit in one spelling; "" if there is none.

    A sign of money stands before a number; degrees, words and their powers after it. The degrees of
    an angle inside sin(...) are not a unit of the whole.
    """
    if tokens[:1] == [r"\$"] or tokens[:2] == ["-", r"\$"]:
        return [token for token in tokens if token != r"\$"], "$"
    for degrees in (["^", r"\circ"], ["^", "{", r"\circ", "}"]):
        angle = not any(token[1:] in FUNCTIONS for token in tokens)
        if tokens[-1:] in (["C"], ["F"]) and tokens[-len(degrees) - 1 : -1] == degrees:
            return tokens[: -len(degrees) - 1], "deg" + tokens[-1]
        if angle and tokens[-len(degrees) :] == degrees:
            return tokens[: -len(degrees)], "deg"
    body, unit = split_product(tokens)
    if unit:
        return body, unit
    for power in ("2", "3"):
        for raised in (["^", power], ["^", "{", power, "}"]):
            body = tokens[: -len(raised)]
            if tokens[-len(raised) :] == raised and is_unit(body[-1:]):
                return body[:-1], unit_name(body[-1]) + power
    return (tokens[:-1], unit_name(tokens[-1])) if is_unit(tokens[-1:]) else (tokens, "")
