"""A response as another tool's file has it."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlkit.batch import Messages
from rlkit.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One response. What a file does not say is None."""

    place: str
    """Where it stands, for messages: "5.jsonl line 3"."""
    group: Hashable
    """Equal for the responses of one group."""
    prompt: str | Messages
    response: str
    reward: float
    rewards: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    prompt_ids: Sequence[int] | None = None
    response_ids: Sequence[int] | None = None
    tokens: Sequence[str] | None = None
    """The response's tokens by name, where a file names them and gives no ids."""
    behavior_logp: Sequence[float] | None = None
    loss_mask: Sequence[bool] | None = None
    finish_reason: str | None = "stop"
    """None = a response of token ids ended if its last one ends a turn."""
    step: int = 0


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file and their places. Raises UserError for a line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a text may have U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path.name} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{place} is not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{place} is not an object with named columns")
        yield place, row


def column(row: Mapping[str, Any], name: str, place: str) -> Any:
    """A value that must be there. Raises UserError if it is not."""
    if row.get(name) is None:
        raise UserError(f"{place} has no '{name}'; columns: {', '.join(map(str, row))}")
    return row[name]


def number(value: Any, name: str, place: str) -> float:
    """A finite number. Raises UserError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{place}: '{name}' is {value!r}, not a finite number")
    return float(value)


def prompt_of(value: Any, name: str, place: str) -> str | Messages:
    """A text or a list of messages. Raises UserError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(
        isinstance(m, Mapping) and isinstance(m.get("content"), str) and "role" in m for m in value
    ):
        return [{"role": str(m["role"]), "content": m["content"]} for m in value]
    raise UserError(f"{place}: '{name}' is neither a text nor a list of messages with texts")
