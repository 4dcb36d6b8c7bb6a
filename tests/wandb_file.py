"""What an offline W&B run holds, read from its file: the log format of LevelDB, after 7 bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32768
FULL, LAST = 1, 4


def chunks(data: bytes) -> Iterator[bytes]:
    """The records; one is in several pieces if it crosses the end of a block."""
    place, parts = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # the rest of a block that is too short for a header
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + HEADER])
        parts += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""


def records(path: Path, kind: str) -> list[Any]:
    """The records of one kind in a `.wandb` file, in order."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for chunk in chunks(path.read_bytes()):
        record: Any = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(chunk)
        if record.WhichOneof("record_type") == kind:
            found.append(getattr(record, kind))
    return found


def values(items: Any) -> dict[str, Any]:
    """Keys and values; a nested key is joined with dots."""
    return {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}


def history(path: Path) -> list[dict[str, Any]]:
    """The rows of a `.wandb` file's history, in order."""
    return [values(record.item) for record in records(path, "history")]


def config_of(path: Path) -> dict[str, Any]:
    """A run's configuration as it ends up, without W&B's own."""
    found: dict[str, Any] = {}
    for record in records(path, "run"):
        found |= values(record.config.update)
    for record in records(path, "config"):
        found |= values(record.update)
    return {key: value for key, value in found.items() if not key.startswith("_")}


def summary_of(path: Path) -> dict[str, Any]:
    """A run's summary as it ends up."""
    found: dict[str, Any] = {}
    for record in records(path, "summary"):
        found |= values(record.update)
    return found
