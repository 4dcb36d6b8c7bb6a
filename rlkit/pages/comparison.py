"""Several runs compared, as a table in the terminal and as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rlkit.evaluation.statistics import Estimate
from rlkit.pages.figures import Comparison, Question, Row, compare
from rlkit.pages.folders import run_folders
from rlkit.pages.scores import Reached
from rlkit.runs.records import ROLLOUTS, SECONDS, STEP, RunRecords, read_run
from rlkit.stored.files import write_whole

UNKNOWN = "-"


def read_runs(given: Sequence[str | Path]) -> list[RunRecords]:
    """The runs that are meant: run folders, folders of runs (a sweep), patterns."""
    return [read_run(path) for path in run_folders(given)]


def table_lines(paths: Sequence[Path], question: Question | None = None) -> list[str]:
    """The comparison of runs as a table for the terminal, with what has to be known about it."""
    return lines_of(compare(read_runs(paths), question))


def lines_of(comparison: Comparison) -> list[str]:
    """A comparison as lines of text."""
    head = heads(comparison)
    rows = [[*cells(row).values()] for row in comparison.rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    table = [
        "  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return [caption(comparison), *table, *(f"Note: {note}." for note in comparison.notes)]


def caption(comparison: Comparison) -> str:
    """What the table shows, in one sentence."""
    runs = sum(len(row.scores) for row in comparison.rows)
    spread = {row.over for row in comparison.rows} - {""}
    interval = f", with 95% intervals over {' or '.join(sorted(spread))}" if spread else ""
    count = f"{_count(runs, 'run')} in {_count(len(comparison.rows), 'group')}"
    return f"{comparison.metric} at the end of {count}{interval}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def heads(comparison: Comparison) -> list[str]:
    """The names of the table's columns."""
    to = "to the target" if comparison.target is None else f"to {comparison.target:.3g}"
    against = f"minus {comparison.baseline}" if len(comparison.rows) > 1 else ""
    return ["group", "seeds", "score", f"responses {to}", f"seconds {to}", against]


def cells(row: Row) -> dict[str, str]:
    """A row of the table as text, by what it says."""
    late = "" if row.finished else f" at step {row.step:g} of {row.steps:g}"
    return {
        "group": row.group.label,
        "seeds": str(len(row.scores)),
        "score": score_text(row) + late,
        "responses": reach_text(row.reached[ROLLOUTS], len(row.scores)),
        "seconds": reach_text(row.reached[SECONDS], len(row.scores)),
        "difference": difference_text(row),
    }


def score_text(row: Row) -> str:
    """A score and its interval."""
    return f"{row.score.value:.3f}" + (f" {interval_text(row.score)}" if row.over else "")


def interval_text(estimate: Estimate, sign: str = "") -> str:
    """An interval: [low, high]."""
    return f"[{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def reach_text(found: Reached | None, runs: int) -> str:
    """What it took to the target."""
    if found is None:
        return UNKNOWN
    if found.median is None:
        return f"not reached ({found.runs} of {runs})" if found.runs else "not reached"
    return f"{found.median:,.0f}" + (f" ({found.runs} of {runs})" if found.runs < runs else "")


def difference_text(row: Row) -> str:
    """The difference to the baseline, and in words whether it is more than chance."""
    if row.difference is None:
        return ""
    found = row.difference.estimate
    interval = f" {interval_text(found, '+')}" if found.n > 1 else ""
    return f"{found.value:+.3f}{interval} {row.difference.words}"


def csv_text(comparison: Comparison) -> str:
    """The table with unrounded numbers, one row per group."""
    rows = [numbers(row, comparison) for row in comparison.rows]
    text = StringIO()
    out = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    return text.getvalue()


def write_csv(comparison: Comparison, path: Path) -> None:
    """Write `csv_text` to a file. Raises UserError if that fails."""
    write_whole(path, csv_text(comparison))


def numbers(row: Row, comparison: Comparison) -> dict[str, str | float | None]:
    """A row of the table as unrounded numbers, by the names of the CSV file's columns."""
    out: dict[str, str | float | None] = {
        "group": row.group.label,
        "metric": comparison.metric,
        "seeds": " ".join(row.scores),
        "scores": " ".join(map(repr, row.scores.values())),
        "step": row.step,
        "score": row.score.value,
        "score_low": row.score.low if row.over else None,
        "score_high": row.score.high if row.over else None,
        "interval_over": row.over,
        "target": comparison.target,
    }
    for name, axis in (("responses", ROLLOUTS), ("steps", STEP), ("seconds", SECONDS)):
        found = row.reached[axis]
        out[f"{name}_to_target"] = found.median if found else None
    found = row.reached[ROLLOUTS]
    out["reached"] = found.runs if found else None
    estimate = row.difference.estimate if row.difference else None
    out |= {
        "baseline": comparison.baseline if estimate else None,
        "difference": estimate.value if estimate else None,
        "difference_low": estimate.low if estimate and estimate.n > 1 else None,
        "difference_high": estimate.high if estimate and estimate.n > 1 else None,
        "paired": str(row.difference.paired).lower() if row.difference else None,
        "verdict": row.difference.words if row.difference else None,
    }
    return out
