"""The number in a judge's answer: found by a pattern or in a JSON object, checked and scaled."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

DECODER = json.JSONDecoder()


def matched(text: str, pattern: str) -> str | None:
    """The first group of the pattern's last match in which it is not empty; None without one."""
    return next((m[1] for m in reversed([*re.finditer(pattern, text)]) if m[1]), None)


def in_object(text: str, field: str) -> str | None:
    """The value of a field in the last JSON object of a text that has it; None if there is none.

    Objects may stand between other text, such as a fence. Those inside another are not looked at.
    """
    found, place = None, text.find("{")
    while place >= 0:
        try:
            value, end = DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            if field in value:
                found = value[field]
        place = text.find("{", end)
    if found is None or isinstance(found, list | dict):
        return None
    return found if isinstance(found, str) else json.dumps(found)


def number_of(
    word: str, values: Mapping[str, float] | None, lowest: float, highest: float
) -> float | None:
    """The number that a word is, or stands for; None if it is none from lowest to highest."""
    word = word.strip()
    if values is not None:
        return {name.lower(): value for name, value in values.items()}.get(word.lower())
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) and lowest <= number <= highest else None


def to_unit(number: float, lowest: float, highest: float) -> float:
    """(number - lowest) / (highest - lowest): from 0 to 1."""
    return (number - lowest) / (highest - lowest)
