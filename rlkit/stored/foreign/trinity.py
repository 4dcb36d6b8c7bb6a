"""Trinity-RFT's experience buffers: SQLite tables of experiences, or jsonl of their dicts.

A table has `reward`, `task_id` and `model_version` as columns, and one serialized experience per
row in `experience_bytes`, which newer versions keep in a second table, <name>_blob. That is a
header, a pickle and safetensors:

    "TRXP", version (1 byte), length of the pickle, of the tensors (8 bytes each), pickle, tensors

Only the tensors are read: a pickle could run code. They hold the tokens, their log-probs and the
action mask, whose length is that of the response. A row that is nothing but a pickle is imported by
its columns `prompt` and `response` if the table has them (older versions), and refused otherwise.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from rlkit.errors import UserError
from rlkit.stored.foreign.record import Record, column, json_lines, number, prompt_of

MAGIC, BYTES, BLOB = b"TRXP", "experience_bytes", "_blob"
HEADER = struct.Struct("<4sBQQ")
SQLITE = b"SQLite format 3\x00"


def records(path: Path, reward: str | None) -> Iterator[Record]:
    """The responses of a database or of a jsonl file.

    `reward` names one of a jsonl line's metrics to count; None = the reward.
    """
    try:
        with path.open("rb") as file:
            is_database = file.read(len(SQLITE)) == SQLITE
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not is_database:
        for place, line in json_lines(path):
            yield _line(line, place, reward)
        return
    if reward is not None:
        raise UserError(f"{path}: a database has one reward per row; leave --reward out")
    for index, row in enumerate(_rows(path), start=1):
        found = _row(row, f"{path.name} row {index}")
        if found is not None:
            yield found


def _line(row: Mapping[str, Any], place: str, reward: str | None) -> Record:
    """A dict of an experience: texts alone."""
    named = {
        str(key): float(value)
        for key, value in (row.get("metrics") or {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    asked = "prompt_text" if row.get("prompt_text") else "messages"
    prompt = prompt_of(column(row, asked, place), asked, place)
    eid, info = row.get("eid") or {}, row.get("info") or {}
    counted = column(row, "reward", place) if reward is None else column(named, reward, place)
    return Record(
        place=place,
        group=(eid.get("batch"), eid.get("task"), repr(prompt)),
        prompt=prompt,
        response=str(column(row, "response_text", place)),
        reward=number(counted, reward or "reward", place),
        rewards=named,
        finish_reason="length" if row.get("truncate_status") == "response_truncated" else "stop",
        step=int(info.get("model_version") or 0),
    )


def _row(row: Mapping[str, Any], place: str) -> Record | None:
    """A row of a table; None if no token of it is to be trained."""
    data = column(row, BYTES, place)
    step = int(row.get("model_version") or 0)
    reward = number(column(row, "reward", place), "reward", place)
    if not isinstance(data, bytes) or not data.startswith(MAGIC):
        if not row.get("prompt") or row.get("response") is None:
            raise UserError(
                f"{place} is a pickle, which could run code when it is read; write the experiences "
                "as jsonl, or with a Trinity-RFT version that stores tensors apart"
            )
        asked = str(row["prompt"])
        return Record(
            place=place,
            group=(step, asked),
            prompt=asked,
            response=str(row["response"]),
            reward=reward,
            step=step,
        )
    tensors = _tensors(data, place)
    if "chosen" in tensors:
        raise UserError(f"{place} is a preference; buffer=pairs trains on those, from jsonl")
    tokens, mask, logp = (tensors.get(n) for n in ("tokens", "action_mask", "logprobs"))
    if tokens is None or mask is None or len(mask) > len(tokens):
        raise UserError(f"{place} has no tokens, or no action mask that fits them")
    if logp is not None and len(logp) != len(mask):
        raise UserError(f"{place}: {len(logp)} log-probs for {len(mask)} tokens of the response")
    if not mask.any():
        return None
    ids, start = tokens.tolist(), len(tokens) - len(mask)
    return Record(
        place=place,
        group=(step, row.get("task_id"), tuple(ids[:start])),
        prompt=str(row.get("prompt") or ""),
        response=str(row.get("response") or ""),
        reward=reward,
        prompt_ids=ids[:start],
        response_ids=ids[start:],
        behavior_logp=None if logp is None else logp.tolist(),
        loss_mask=mask.bool().tolist(),
        finish_reason=None,
        step=step,
    )


def _tensors(data: bytes, place: str) -> dict[str, Tensor]:
    """The tensors of a serialized experience, by their names; its pickle is passed over."""
    try:
        _, version, pickled, packed = HEADER.unpack_from(data)
        start = HEADER.size + pickled
        found = load(data[start : start + packed]) if version == 1 else {}
    except (struct.error, SafetensorError) as error:
        raise UserError(f"{place} cannot be read: {error}") from None
    if version != 1 or "1:tokens" in found:
        raise UserError(f"{place} holds several experiences, or is of an unknown version")
    return {name.removeprefix("0:"): tensor for name, tensor in found.items()}


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of every table of experiences, with the bytes that a second table holds."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            rows = (row for query in _queries(database, path) for row in database.execute(query))
            for row in rows:
                found: dict[str, Any] = dict(row)
                yield found
    except sqlite3.Error as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _queries(database: sqlite3.Connection, path: Path) -> list[str]:
    names = [r[0] for r in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {
        name: {r[1] for r in database.execute(f"PRAGMA table_info({_quoted(name)})")}
        for name in names
    }
    out = []
    for name, own in columns.items():
        if "reward" in own and BYTES in own:
            out.append(f"SELECT * FROM {_quoted(name)} ORDER BY id")
        elif "reward" in own and BYTES in columns.get(name + BLOB, ()):
            blob = _quoted(name + BLOB)
            out.append(
                f"SELECT a.*, b.{BYTES} FROM {_quoted(name)} AS a JOIN {blob} AS b ON a.id = b.id "
                "ORDER BY a.id"
            )
    if not out:
        raise UserError(f"{path} has no table of experiences with rewards; tables: {names}")
    return out


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
