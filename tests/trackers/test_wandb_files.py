"""The last step in W&B's offline files, also in one that a killed process left."""

from __future__ import annotations

import struct
from pathlib import Path

from wandb.proto import wandb_internal_pb2

from rlkit.trackers.wandb_files import last_step

BLOCK, HEADER = 32768, 7


def row(step: int, size: int = 0) -> bytes:
    """A history record, with a text of `size` bytes in it."""
    record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
    record.history.step.num = step
    if size:
        item = record.history.item.add()
        item.key, item.value_json = "text", '"' + "x" * size + '"'
    data: bytes = record.SerializeToString()
    return data


def file_of(*parts: bytes) -> bytes:
    """A file of records in the log format of LevelDB."""
    out = b"\0" * HEADER
    for part in parts:
        first = True
        while part or first:
            room = BLOCK - len(out) % BLOCK
            if room < HEADER:
                out += b"\0" * room
                room = BLOCK
            piece, part = part[: room - HEADER], part[room - HEADER :]
            kind = {(1, 1): 1, (1, 0): 2, (0, 0): 3, (0, 1): 4}[first, not part]
            out += struct.pack("<IHB", 0, len(piece), kind) + piece
            first = False
    return out


def write(folder: Path, start: int, data: bytes, run_id: str = "abc") -> None:
    place = folder / "wandb" / f"offline-run-{start}-{run_id}"
    place.mkdir(parents=True)
    (place / f"run-{run_id}.wandb").write_bytes(data)


def test_the_largest_step_of_all_starts_counts(tmp_path: Path) -> None:
    assert last_step(tmp_path, "abc") is None
    write(tmp_path, 1, file_of(row(1), row(2), row(7)))
    write(tmp_path, 2, file_of(row(3), row(4)))
    write(tmp_path, 3, file_of(row(99)), run_id="other")
    assert last_step(tmp_path, "abc") == 7


def test_a_record_may_cross_blocks_and_the_last_may_be_cut(tmp_path: Path) -> None:
    whole = file_of(row(1), row(2, size=80_000), row(3), row(4, size=40_000))
    write(tmp_path, 1, whole)
    assert last_step(tmp_path, "abc") == 4
    for cut in (1, 3_000, 39_000):
        write(tmp_path / str(cut), 1, whole[:-cut])
        assert last_step(tmp_path / str(cut), "abc") == 3
    write(tmp_path / "empty", 1, b"")
    assert last_step(tmp_path / "empty", "abc") is None


def test_zeros_at_the_end_are_no_record(tmp_path: Path) -> None:
    write(tmp_path, 1, file_of(row(5)) + b"\0" * 500)
    assert last_step(tmp_path, "abc") == 5
