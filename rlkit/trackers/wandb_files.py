"""What W&B's offline files of a run hold, so that a resumed run adds nothing twice."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32768
"""Bytes of the file's header and of each record's, and of a block: the log format of LevelDB."""
FULL, LAST = 1, 4
"""Kinds of pieces that end a record."""


def last_step(run_dir: Path, run_id: str) -> int | None:
    """The last step that earlier offline starts of this run have recorded; None if none has.

    A row that a killed process had not written whole counts as absent.
    """
    files = run_dir.glob(f"wandb/offline-run-*/run-{run_id}.wandb")
    steps = [step for path in files for step in _steps(path)]
    return max(steps, default=None)


def _steps(path: Path) -> Iterator[int]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto import wandb_internal_pb2

    for data in _records(path.read_bytes()):
        record: Any = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        try:
            record.ParseFromString(data)
        except DecodeError:
            return
        if record.WhichOneof("record_type") == "history":
            yield record.history.step.num


def _records(data: bytes) -> Iterator[bytes]:
    """The whole records of a file; one that crosses the end of a block is in pieces."""
    place, parts = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + HEADER])
        place += HEADER + length
        if place > len(data):
            return
        parts += data[place - length : place]
        if kind in (FULL, LAST):
            yield parts
            parts = b""
