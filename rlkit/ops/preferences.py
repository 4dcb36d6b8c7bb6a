"""A preference, a prompt with a chosen and a rejected response, from any of TRL's formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlkit.errors import UserError

PROMPT, CHOSEN, REJECTED = "prompt", "chosen", "rejected"
"""The columns of a preference."""
Said = str | Sequence[Mapping[str, Any]]


def split_preference(row: Mapping[str, Any], place: str) -> tuple[Any, str, str]:
    """The prompt of a row, and the texts of the chosen and the rejected response.

    A prompt that is not given is what both begin with: messages, or text up to the last character
    they share, without a space at its end (TRL's `extract_prompt`). Raises UserError for rows of
    another form.
    """
    chosen, rejected = (_said(row, name, place) for name in (CHOSEN, REJECTED))
    if isinstance(chosen, str) is not isinstance(rejected, str):
        raise UserError(f"{place}: '{CHOSEN}' is a text and '{REJECTED}' is not, or the reverse")
    prompt = row.get(PROMPT)
    if prompt is None:
        prompt, chosen, rejected = _shared(chosen, rejected)
    if not prompt:
        raise UserError(f"{place} has no '{PROMPT}', and its responses do not begin alike")
    return prompt, _text(chosen, CHOSEN, place), _text(rejected, REJECTED, place)


def _said(row: Mapping[str, Any], name: str, place: str) -> Said:
    value = row.get(name)
    if isinstance(value, str) or (isinstance(value, list) and value):
        return value
    raise UserError(
        f"{place} has no '{name}' that is a text or messages; columns: {', '.join(row)}; use a "
        "task with preferences, task=preference, or set buffer.path to a file of them"
    )


def _shared(chosen: Said, rejected: Said) -> tuple[Any, Said, Said]:
    if isinstance(chosen, str) and isinstance(rejected, str):
        pairs = enumerate(zip(chosen, rejected, strict=False))
        end = next((n for n, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
        end -= int(chosen[:end].endswith(" "))
        return chosen[:end], chosen[end:], rejected[end:]
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
        same += 1
    return list(chosen[:same]), chosen[same:], rejected[same:]


def _text(said: Said, name: str, place: str) -> str:
    if isinstance(said, str):
        return said
    if len(said) != 1 or not isinstance(said[0].get("content"), str):
        raise UserError(f"{place}: '{name}' must be one assistant message behind the prompt")
    return str(said[0]["content"])
