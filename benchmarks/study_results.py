"""The Parquet file of a study: its runs, and the study as it was before the first of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from study_file import Study, checked

from rlkit.errors import UserError

SPEC = "study"
"""The study as it was when its first run ended, in the file's metadata."""
FREE = ("order", "title", "testbed", "not_run", "minutes_per_run")
"""What may change once a study has runs: it neither makes nor chooses nor judges a run."""
Run = tuple[str, str, float | None, float | None, int, str]
"""Phase, variant, value of the axis, learning rate, seed and digest of the words."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run at one of its evaluations: a line of the Parquet file."""

    phase: str
    variant: str
    at: float | None
    learning_rate: float | None
    seed: int
    words: str
    """A digest of the words of the command line."""
    step: int
    score: float
    responses: float
    tokens: float
    seconds: float
    """Of training so far, evaluations not counted."""
    generation_seconds: float
    """Of those, the seconds of generation."""
    clip_fraction: float | None
    """Mean over the steps since the evaluation before, as are the next two."""
    entropy: float | None
    length: float | None
    """Tokens of a response."""
    stopped: str
    """Why the run ended early; empty if it did not."""
    source: str
    """A hash of the code."""
    processor: str

    @property
    def run(self) -> Run:
        """The run that it is of."""
        return self.phase, self.variant, self.at, self.learning_rate, self.seed, self.words


SCHEMA = pa.schema(
    [
        ("phase", pa.string()),
        ("variant", pa.string()),
        ("at", pa.float64()),
        ("learning_rate", pa.float64()),
        ("seed", pa.int32()),
        ("words", pa.string()),
        ("step", pa.int32()),
        ("score", pa.float64()),
        *((name, pa.float32()) for name in ("responses", "tokens", "seconds")),
        *((name, pa.float32()) for name in ("generation_seconds", "clip_fraction")),
        *((name, pa.float32()) for name in ("entropy", "length")),
        *((name, pa.string()) for name in ("stopped", "source", "processor")),
    ]
)
assert SCHEMA.names == [field.name for field in fields(Row)]


def write_results(path: Path, study: Study, rows: Sequence[Row]) -> None:
    """Add the rows to those that the file has; a run that is in both is replaced.

    The file keeps the study that it was begun with.

    Raises UserError if a run would stand beside one that was made in another way.
    """
    before = read_results(path) if path.is_file() else None
    new = {row.run for row in rows}
    kept = [row for row in before[1] if row.run not in new] if before else []
    every = sorted([*kept, *rows], key=_order)
    check_runs(every, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([asdict(row) for row in every], schema=SCHEMA)
    first = before[0] if before else study
    table = table.replace_schema_metadata({SPEC: first.model_dump_json(exclude_defaults=True)})
    unfinished = path.with_suffix(".part")
    pq.write_table(table, unfinished, compression="zstd")
    unfinished.replace(path)


def _order(row: Row) -> tuple[Any, ...]:
    """The sweep first; then by variant, place, rate, seed and step."""
    place = (row.variant, row.at or 0.0, row.learning_rate or 0.0, row.seed, row.step)
    return row.phase != "tuning", *place


def check_runs(rows: Sequence[Row], path: Path) -> None:
    """Raise UserError if two runs are of one place in the study.

    A reported run may not have two learning rates, and none may have two sets of words.
    """
    places: dict[tuple[Any, ...], Run] = {}
    for run in dict.fromkeys(row.run for row in rows):
        phase, variant, at, rate, seed, _ = run
        place = (phase, variant, at, seed, rate if phase == "tuning" else None)
        if places.setdefault(place, run) != run:
            raise UserError(
                f"{path} holds a {phase} run of {variant}, seed {seed}, that was made with another "
                "learning rate or other words; move the file away, or name another --out"
            )


def read_results(path: Path) -> tuple[Study, list[Row]]:
    """The study as it was before the first run, and the rows of a file."""
    table = pq.read_table(path)
    study = checked(json.loads(table.schema.metadata[SPEC.encode()]), str(path))
    return study, [Row(**row) for row in table.to_pylist()]


def check_unchanged(study: Study, path: Path) -> None:
    """Raise UserError if a study with runs is no longer what it was before them."""
    if path.is_file() and (changed := changes(read_results(path)[0], study)):
        raise UserError(
            f"{changed[0]} of study {study.name} is not what it was when its first runs were made "
            f"({path}); put it back, or give the study another name"
        )


def changes(before: Study, now: Study) -> list[str]:
    """The keys that changed and must not: all but FREE, and reporting seeds that were added."""
    old, new = before.model_dump(), now.model_dump()
    if added_seeds(before, now):
        new["reporting"]["seeds"] = old["reporting"]["seeds"]
    return [place for key in old if key not in FREE for place in differing(old[key], new[key], key)]


def differing(old: Any, new: Any, place: str) -> list[str]:
    """Where two values differ: in a mapping, the keys."""
    if old == new:
        return []
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [place]
    found = []
    for key in dict.fromkeys([*old, *new]):
        inside = key in old and key in new
        below = f"{place}.{key}"
        found += differing(old[key], new[key], below) if inside else [below]
    return found


def added_seeds(before: Study, now: Study) -> list[int]:
    """Reporting seeds that a study got after its first runs; none if it lost one too."""
    old, new = before.reporting.seeds, now.reporting.seeds
    return [seed for seed in new if seed not in old] if {*old} <= {*new} else []
