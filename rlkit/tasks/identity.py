"""What a problem is called: a hash of its prompt and columns, wherever it stands in the data."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rlkit.batch import Prompt
from rlkit.interfaces import TASK, State

DIGITS = 16
"""Hexadecimal digits of a problem's hash: 64 bits, so that a million problems share none."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def _plain(value: Any) -> Any:
    """What JSON writes for a value that it does not know: its items, or its text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    return _ADDRESS.sub("", repr(value))


_json = json.JSONEncoder(sort_keys=True, default=_plain)


def _text(row: Any) -> str:
    """A row as text: equal rows have equal texts, whatever the order of their columns."""
    try:
        return _json.encode(row)
    except TypeError:  # keys that are not text
        return _json.encode(_with_text_keys(row))


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {repr(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(v) for v in value] if isinstance(value, list | tuple) else value


def row_hash(row: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of the sha256 of a row: its prompt and all its columns."""
    return hashlib.sha256(_text(row).encode()).hexdigest()[:DIGITS]


@runtime_checkable
class Hashed(Protocol):
    """Rows that know their hashes, and that are never changed."""

    @property
    def row_hashes(self) -> Sequence[str]:
        """One per row, different for different rows."""
        ...


def row_ids(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """An id per row, `<name>-<hash>`; further copies of a row are `<name>-<hash>-2`, `-3`, ..."""
    seen: Counter[str] = Counter()
    ids = []
    for digits in rows.row_hashes if isinstance(rows, Hashed) else map(row_hash, rows):
        key = f"{name}-{digits}"
        seen[key] += 1
        ids.append(key if seen[key] == 1 else f"{key}-{seen[key]}")
    return ids


def fingerprint(ids: Sequence[str]) -> State:
    """What tells two lists of problems apart: how many there are, and a hash of all, in order."""
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    return {"problems": len(ids), "sha256": digest[:DIGITS]}


def data_source(prompt: Prompt) -> str | None:
    """Where a problem is from: verl's column `data_source`; None without one."""
    name = prompt.columns.get("data_source")
    return None if name is None else str(name)


def labels_of(prompt: Prompt, tasks: Collection[str]) -> list[str]:
    """Under which further names the reward of responses is logged: `source/<name>`, and the task.

    The task is that of a mix of `tasks`.
    """
    source, task = data_source(prompt), prompt.columns.get(TASK)
    labels = [] if source is None else [f"source/{source}"]
    return [*labels, str(task)] if task in tasks else labels
