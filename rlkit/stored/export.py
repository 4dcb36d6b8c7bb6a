"""A run's stored rollouts as one data set: fewer, larger files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlkit.errors import UserError
from rlkit.stored.card import CARD
from rlkit.stored.parquet import opened, write_table
from rlkit.stored.step_files import step_of
from rlkit.stored.write import DATA, ROLLOUTS, ROW_GROUP, shards

ROWS = 50_000
"""Rows of a file, at least, unless it is the last."""


def steps_of(text: str | None) -> tuple[int, int | None]:
    """The first and the last step that "a:b", "a:" or ":b" names; both are included.

    Raises UserError for any other text.
    """
    first, colon, last = (text or ":").partition(":")
    if not colon or any(part and not part.isdigit() for part in (first, last)):
        raise UserError(f"--steps {text}: give the first and the last step, as in 10:20")
    return int(first or 1), int(last) if last else None


def export(run: Path, out: Path, steps: tuple[int, int | None] = (1, None)) -> tuple[int, int]:
    """Copy the rollouts of some steps into a folder of their own; returns files and responses.

    Raises UserError if there are none, or if the folder exists.
    """
    folder = run / ROLLOUTS
    first, last = steps
    found = [
        path
        for path in shards(folder)
        if (step := step_of(path)) is not None and first <= step and (last is None or step <= last)
    ]
    if not found:
        raise UserError(
            f"{run} holds no rollouts of these steps; a run writes them with rollout.save=true"
        )
    if out.exists():
        raise UserError(f"{out} exists already; choose another folder")
    unfinished = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / DATA).mkdir(parents=True)
    files = rows = 0
    for table in _merged(found):
        write_table(
            table, unfinished / DATA / f"part-{files:05d}.parquet", row_group_size=ROW_GROUP
        )
        files, rows = files + 1, rows + len(table)
    shutil.copy(folder / CARD, unfinished / CARD)
    unfinished.rename(out)
    return files, rows


def _merged(paths: list[Path]) -> Iterator[Any]:
    """The tables (`pyarrow.Table`) of the shards, put together until they have `ROWS` rows.

    Shards of different cards stay apart: a stage may sample at another temperature.
    """
    import pyarrow as pa

    held: list[Any] = []
    for path in paths:
        table = opened(path).read()
        if held and table.schema.metadata != held[0].schema.metadata:
            yield pa.concat_tables(held)
            held = []
        held.append(table)
        if sum(map(len, held)) >= ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
