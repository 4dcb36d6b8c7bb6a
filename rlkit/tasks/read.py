"""Rows of a data file or a Hugging Face data set, all of them or a UserError."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import Any

from rlkit.config.hub import from_hub, looks_like_path, packaged
from rlkit.errors import UserError, suggest_file
from rlkit.interfaces import FileRow

SAVED = ("state.json", "dataset_dict.json")
"""Files of which `save_to_disk` leaves one."""
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")

PATTERN = "*?["
"""Signs of a name that stands for several files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows and where they come from, for messages."""

    name: str
    """The file or data set."""
    rows: Sequence[Mapping[str, Any]]
    numbers: Sequence[int]
    """Each row's line or place, from 1."""
    unit: str
    """What the numbers count: "line" or "row"."""
    parts: Sequence[Table] = ()
    """The tables it was put together from, if there are several."""

    def place(self, index: int) -> str:
        """The source of row `index`: "data.jsonl line 3"."""
        for part in self.parts:
            if index < len(part.rows):
                return part.place(index)
            index -= len(part.rows)
        return f"{self.name} {self.unit} {self.numbers[index]}"

    def head(self, count: int | None) -> Table:
        """The first `count` rows; None = all."""
        return replace(self, rows=self.rows[:count], numbers=self.numbers[:count])


def read_rows(path: str) -> list[FileRow]:
    """The rows of a part's own file. Raises UserError as `read_table` does."""
    table = read_table(path, None, "train")
    return [
        FileRow(number=number, place=table.place(index), columns=row)
        for index, (number, row) in enumerate(zip(table.numbers, table.rows, strict=True))
    ]


def read_tables(paths: str | Sequence[str], subset: str | None, split: str) -> Table:
    """The rows of one or several files and data sets, one after the other.

    A name with * ? or [ stands for all files that match, in the order of their names.
    """
    given = [paths] if isinstance(paths, str) else paths
    tables = [read_table(name, subset, split) for path in given for name in matching(path)]
    if len(tables) == 1:
        return tables[0]
    return Table(
        name=", ".join(table.name for table in tables),
        rows=[row for table in tables for row in table.rows],
        numbers=[number for table in tables for number in table.numbers],
        unit="row",
        parts=tables,
    )


def is_local(path: str) -> bool:
    """Whether `read_table` looks for it on this machine alone, not on the Hugging Face hub."""
    file = Path(packaged(path, "path")).expanduser()
    named = file.name.lower().endswith(ENDINGS) or looks_like_path(path)
    return named or any(sign in path for sign in PATTERN) or file.exists()


def matching(path: str) -> list[str]:
    """The files that a pattern matches; a name without one stands for itself."""
    if not any(sign in path for sign in PATTERN) or Path(path).expanduser().exists():
        return [path]
    found = sorted(glob(str(Path(path).expanduser()), recursive=True))
    if not found:
        raise UserError(f"no file matches {path}")
    return found


def read_table(path: str, subset: str | None, split: str) -> Table:
    """Read a file by its extension, or else a Hugging Face data set.

    Raises UserError if it cannot be read or has no rows.
    """
    file = Path(packaged(path, "path")).expanduser()
    if file.name.lower().endswith(ENDINGS):
        table = _read_file(file, path)
    elif file.is_file():
        raise UserError(f"{path} is of a kind that cannot be read; known: {', '.join(ENDINGS)}")
    elif looks_like_path(path) and not file.is_dir():
        raise UserError(_missing(file, path))
    elif any((file / name).is_file() for name in SAVED):
        table = _load_saved(file, path, split)
    else:
        table = _load_dataset(path, subset, split)
    if not table.rows:
        raise UserError(f"{path} is empty: it has no rows")
    return table


def _read_file(file: Path, name: str) -> Table:
    if not file.is_file():
        raise UserError(_missing(file, name))
    if file.suffix.lower() == ".parquet":
        return _read_parquet(file, name)
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix.lower() == ".gz" else data).decode("utf-8-sig")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{name} is not a complete gzip file: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from None
    if ".jsonl" not in file.name.lower() and text.lstrip().startswith("["):
        return _read_array(text, name)
    return _read_lines(text, name)


def _missing(file: Path, name: str) -> str:
    folder = file.parent
    if not folder.is_dir():
        return f"{name} does not exist, nor does the folder {folder}"
    there = sorted(f.name for f in folder.iterdir() if f.name.lower().endswith(ENDINGS))
    return f"{name} does not exist.{suggest_file(file.name, there)}"


def _read_lines(text: str, name: str) -> Table:
    rows, numbers = [], []
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{name} line {number} is not valid JSON: {error.msg}") from None
        rows.append(_mapping(row, f"{name} line {number}"))
        numbers.append(number)
    return Table(name=name, rows=rows, numbers=numbers, unit="line")


def _read_array(text: str, name: str) -> Table:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{name} line {error.lineno} is not valid JSON: {error.msg}") from None
    rows = [_mapping(row, f"{name} row {i}") for i, row in enumerate(values, start=1)]
    return Table(name=name, rows=rows, numbers=range(1, len(rows) + 1), unit="row")


def _mapping(row: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"{place} is not an object with named columns")
    return row


def _read_parquet(file: Path, name: str) -> Table:
    arrow = importlib.import_module("pyarrow")
    try:
        rows = importlib.import_module("pyarrow.parquet").read_table(file).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise UserError(f"{name} is not a parquet file that can be read: {_first(error)}") from None
    return Table(name=name, rows=rows, numbers=range(1, len(rows) + 1), unit="row")


def _load_saved(folder: Path, name: str, split: str) -> Table:
    """A folder that a data set's `save_to_disk` wrote, or one of its splits."""
    datasets = importlib.import_module("datasets")
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(f"{name} cannot be loaded: {_first(error)}") from None
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise UserError(f"{name} has no split '{split}'. Splits: {', '.join(loaded)}")
        loaded = loaded[split]
    return Table(name=name, rows=loaded.to_list(), numbers=range(1, len(loaded) + 1), unit="row")


def _load_dataset(name: str, subset: str | None, split: str) -> Table:
    datasets = importlib.import_module("datasets")
    local = Path(name).is_dir()
    try:
        with nullcontext() if local else from_hub("dataset", name, name):
            loaded = datasets.load_dataset(name, subset, split=split)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(
            f"{name} is neither a file ending in {', '.join(ENDINGS)} nor a data set that can be "
            f"loaded: {_first(error)}"
        ) from None
    return Table(name=name, rows=loaded.to_list(), numbers=range(1, len(loaded) + 1), unit="row")


def _first(error: Exception) -> str:
    """The first line of a message."""
    return (str(error) or type(error).__name__).splitlines()[0]
