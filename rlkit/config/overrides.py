"""Overrides as they are written on the command line."""

from __future__ import annotations

import re

from rlkit.errors import UserError

_KEY = re.compile(r"[+~]*([^=@:]+)")


def key_of(override: str) -> str:
    """What an override sets: "+train.steps=3" sets train.steps."""
    match = _KEY.match(override.strip())
    if match is None:
        raise UserError(f"stages: '{override}' is not an override; write it as on the command line")
    return match[1]
