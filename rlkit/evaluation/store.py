"""What an evaluation leaves on disk: every sample in Parquet, in chunks that are whole or absent.

    settings.json                what the samples depend on
    samples/<name>/00000.parquet a row per sample of the first problems, greedy responses included
    results.json                 the figures

A killed evaluation continues from the chunks it has. The same settings give the same samples, since
the draws of a chunk depend on the seed and its number alone.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rlkit.errors import UserError
from rlkit.stored.files import write_whole
from rlkit.stored.parquet import opened, read_rows, write_table

SETTINGS, RESULTS, SAMPLES = "settings.json", "results.json", "samples"
BENCHMARKS = "benchmarks"
"""The part of the settings that says which problems: more may be added later."""
COLUMNS = {
    "problem": "int32",
    "prompt_id": "string",
    "id": "string",
    "prompt": "string",
    "answer": "string",
    "greedy": "bool_",
    "sample": "int32",
    "response": "string",
    "given": "string",
    "class": "int32",
    "right": "bool_",
    "reward": "float64",
    "tokens": "int32",
    "finish_reason": "string",
    "reflects": "bool_",
}
"""Columns and their types. `given` is the answer cut out of the response, `class` numbers the
equal ones among the samples of a problem; both are null if there is none."""
MARKS = ("problem", "greedy", "sample", "class", "right", "tokens", "finish_reason", "reflects")
"""Columns that the figures are computed from."""

COUNTS = b"counts"
"""Where a chunk says how often rewards failed over it, in the metadata of its columns."""

Sample = Mapping[str, Any]
"""A row."""


NOTHING: Mapping[str, int] = MappingProxyType({})


class Store:
    """The folder of an evaluation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Write the settings, or check that they are those of the samples that are there.

        Raises UserError, naming what differs, if they are not.
        """
        path = self.folder / SETTINGS
        new: dict[str, Any] = json.loads(json.dumps(settings))
        old = _read_json(path) if path.is_file() else {BENCHMARKS: {}}
        if path.is_file() and (changed := list(differences(old, new))):
            raise UserError(
                f"{self.folder} holds samples of an evaluation with other settings: "
                f"{'; '.join(changed[:4])}. Choose another folder with --out, or the old settings"
            )
        write_whole(
            path, json.dumps(new | {BENCHMARKS: old[BENCHMARKS] | new[BENCHMARKS]}, indent=1)
        )

    def has(self, name: str, chunk: int) -> bool:
        """Whether a chunk is there."""
        return self.file(name, chunk).is_file()

    def file(self, name: str, chunk: int) -> Path:
        """Where a chunk is."""
        return self.folder / SAMPLES / distinct(name) / f"{chunk:05}.parquet"

    def write(
        self, name: str, chunk: int, rows: Sequence[Sample], counts: Mapping[str, int] = NOTHING
    ) -> None:
        """Write a chunk, whole or not at all, with the events of the rewards that marked it.

        Raises UserError if the system refuses.
        """
        import pyarrow as pa

        columns = schema().with_metadata({COUNTS: json.dumps(dict(counts))})
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=columns)
        write_table(table, self.file(name, chunk))

    def counts(self, name: str, chunks: int) -> dict[str, int]:
        """The events of the rewards over the first `chunks` chunks."""
        total: Counter[str] = Counter()
        for path in (self.file(name, chunk) for chunk in range(chunks)):
            with opened(path) as file:
                total.update(json.loads((file.schema_arrow.metadata or {}).get(COUNTS, b"{}")))
        return dict(total)

    def read(
        self,
        name: str,
        chunks: int,
        columns: Sequence[str] = MARKS,
        problems: Sequence[int] | None = None,
    ) -> list[dict[str, Any]]:
        """The rows of the first `chunks` chunks, of all problems or of those alone.

        Raises UserError for a file that is damaged.
        """
        rows: list[dict[str, Any]] = []
        chosen = None if problems is None else [("problem", "in", list(problems))]
        for path in (self.file(name, chunk) for chunk in range(chunks)):
            try:
                rows += read_rows(path, columns, chosen)
            except UserError as error:
                raise UserError(
                    f"{error}; remove it, and the same command answers its problems again"
                ) from error
        return rows

    def write_results(self, results: Mapping[str, Any]) -> Path:
        """Write results.json."""
        return write_whole(self.folder / RESULTS, json.dumps(results, indent=1))


def schema() -> Any:
    """The columns of a chunk."""
    import pyarrow as pa

    return pa.schema([pa.field(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])


def safe(name: str) -> str:
    """A name as a folder: letters, digits and -_. stay, all else becomes _."""
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return kept.lstrip(".") or "_"


def distinct(name: str) -> str:
    """A folder that no other name has: what `safe` makes of it and, if that differs, a digest."""
    plain = safe(name)
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return plain if plain == name else f"{plain}-{digest}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What differs, in words. Benchmarks may be new; those of both must be the same."""
    for key in {**old, **new}:
        if key != BENCHMARKS and old.get(key) != new.get(key):
            yield f"{key} was {shown(old.get(key))}, and is {shown(new.get(key))}"
    for name in {*old[BENCHMARKS]} & {*new[BENCHMARKS]}:
        before, now = old[BENCHMARKS][name], new[BENCHMARKS][name]
        for key in {**before, **now}:
            if before.get(key) != now.get(key):
                was = f"was {shown(before[key])}" if key in before else "was not noted"
                yield f"{name}: {key} {was}, and is {shown(now.get(key))}"


def shown(value: Any) -> str:
    """A setting on one short line."""
    return json.dumps(value)[:60]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read; choose another folder with --out") from error
    return found
