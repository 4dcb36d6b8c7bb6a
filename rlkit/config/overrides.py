"""Overrides as they are written on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlkit.errors import UserError

_KEY = re.compile(r"[+~]*([^+~=@:][^=@:]*)")


def key_of(override: str) -> str:
    """What an override sets: "+train.steps=3" sets train.steps."""
    match = _KEY.match(override.strip())
    if match is None:
        raise UserError(f"stages: '{override}' is not an override; write it as on the command line")
    return match[1]


def option_value(arguments: Sequence[str], *names: str) -> str | None:
    """The value of an option with dashes: of `--config-dir x`, or of `--config-dir=x`."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names and equals:
            return value
        if name in names:
            return next(iter(arguments[place + 1 :]), None)
    return None


def quoted(text: str) -> str:
    """A value quoted so that Hydra reads it unchanged, whatever it contains.

    Inside quotes a backslash is special only before a quote.
    """
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"
