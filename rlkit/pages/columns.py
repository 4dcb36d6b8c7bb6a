"""A run's metrics as columns for a page: rounded, and thinned where a run is very long."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.pages.times import REST, rest
from rlkit.runs.records import ROLLOUTS, SECONDS, STEP, TOKENS, Record, RunRecords

AXES = {STEP: "steps", ROLLOUTS: "responses", TOKENS: "tokens", SECONDS: "seconds of training"}
DIGITS = 6
"""Significant digits: more than a plot can show."""
MOST_ROWS = 2_000
"""Points of a line: as many as a wide screen has pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The metrics of a run over its rows: one row per step, or several steps of a very long run."""

    rows: Sequence[Record]
    per_row: int
    """Training steps and evaluations that a row stands for."""

    @staticmethod
    def of(run: RunRecords, most: int = MOST_ROWS) -> Columns:
        """A row for each step, in which its training and its evaluation meet; at most `most`."""
        steps: dict[float, dict[str, float]] = {}
        for record in run.records:
            left = rest(record)
            extra = {} if left is None else {REST: left}
            steps.setdefault(record[STEP], {}).update({**record, **extra})
        rows = list(steps.values())
        per_row = math.ceil(len(rows) / most)
        buckets = [rows[at : at + per_row] for at in range(0, len(rows), per_row)]
        return Columns(rows=[_reduced(bucket) for bucket in buckets], per_row=per_row)

    @property
    def metrics(self) -> list[str]:
        """Every metric, in order of appearance."""
        return [*dict.fromkeys(key for row in self.rows for key in row if key not in AXES)]

    def payload(self) -> dict[str, Any]:
        """What a page's script reads.

        `axes`: name -> x of every row, of the axes on which the run moved. `series`: metric ->
        [pattern, values], and `patterns`[pattern] are the numbers of the rows with these values.
        """
        axes = {name: [rounded(row[name]) for row in self.rows] for name in AXES}
        patterns: dict[tuple[int, ...], int] = {}
        series: dict[str, list[Any]] = {}
        for key in self.metrics:
            places = tuple(i for i, row in enumerate(self.rows) if key in row)
            pattern = patterns.setdefault(places, len(patterns))
            series[key] = [pattern, [rounded(self.rows[i][key]) for i in places]]
        return {
            "axes": {name: x for name, x in axes.items() if name == STEP or x[-1]},
            "patterns": [list(places) for places in patterns],
            "series": series,
        }

    def row_of(self, step: float) -> int:
        """The row that a step is in."""
        return next((i for i, row in enumerate(self.rows) if row[STEP] >= step), len(self.rows) - 1)


def rounded(value: float) -> float | None:
    """A number with 6 significant digits, whole where it can be; None if it is not finite."""
    try:
        short = float(f"{value:.{DIGITS}g}")
    except OverflowError:  # an integer beyond what a float can hold
        return None
    if not math.isfinite(short):
        return None
    if isinstance(value, int) and abs(value) < 2**53:
        return int(value)
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _reduced(bucket: Sequence[Record]) -> Mapping[str, float]:
    """One row of several: the mean of what was measured, the highest of maxima, the last x."""
    if len(bucket) == 1:
        return bucket[0]
    out: dict[str, float] = {}
    for key in dict.fromkeys(key for row in bucket for key in row):
        values = [row[key] for row in bucket if key in row]
        if key in AXES:
            out[key] = values[-1]
        else:
            out[key] = max(values) if key.endswith("_max") else sum(values) / len(values)
    return out
