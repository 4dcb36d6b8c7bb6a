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


def history(path: Path) -> list[dict[str, Any]]:
    """The rows of a `.wandb` file's history, in order."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for chunk in chunks(path.read_bytes()):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(chunk)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows
