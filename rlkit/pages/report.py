"""A run's page: report.html in its folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rlkit.pages import panels
from rlkit.pages.columns import AXES, Columns, rounded
from rlkit.pages.headline import headline, name_of
from rlkit.pages.html import document, text
from rlkit.pages.samples import SCRIPTS as SAMPLE_SCRIPTS
from rlkit.pages.samples import STYLES as SAMPLE_STYLES
from rlkit.pages.samples import embedded_samples, write_samples
from rlkit.pages.score import intervals
from rlkit.runs.records import SECONDS, STEP, RunRecords, read_run
from rlkit.stored.files import write_whole

REPORT = "report.html"
SCRIPTS = ("report.js", *SAMPLE_SCRIPTS)
STYLES = ("report.css", *SAMPLE_STYLES)
EXTREMES = ("metric", "first", "last", "lowest", "highest")
MARKED = {"schedule/rebirths": "rebirth", "schedule/stage": "stage"}
"""Counts whose rises are marked in every plot."""
LONGEST_SETTINGS = 200_000
"""Characters of the settings that the page shows."""


def write_report(run_dir: Path) -> Path:
    """Write <run_dir>/report.html, with report/ beside it, and return its path.

    Raises UserError as `read_run` does, and if the folder cannot be written.
    """
    whole = page(read_run(run_dir))
    write_samples(run_dir)
    return write_whole(run_dir / REPORT, whole)


def page(run: RunRecords, *, connect: bool = False) -> str:
    """The page of a run; with `connect` it follows the run by asking the server."""
    columns = Columns.of(run)
    body = (
        f'<div data-live="head">{headline(run)}</div>'
        '<div class="switches"><div id="switches"><nav id="index"></nav></div></div>'
        f"<main>{_thinned(columns)}</main><footer class='wrap'>{_details(run)}</footer>"
        "<noscript><p class='wrap'>The plots need JavaScript.</p></noscript>"
    )
    title = f"{name_of(run)} · rlkit"
    return document(title, body, data(run, columns), SCRIPTS, STYLES, connect=connect)


def data(run: RunRecords, columns: Columns) -> dict[str, Any]:
    """What the page's scripts read: metrics, questions with their plots, bands and marks."""
    questions = panels.payload(columns)
    bands = {
        key: [[rounded(end) for end in side] for side in ends]
        for key in columns.metrics
        if panels.is_score(key) and (ends := intervals(run, columns.rows, key)) is not None
    }
    return {
        **columns.payload(),
        "labels": AXES,
        "questions": questions,
        "bands": bands,
        "marks": marks(run, columns),
        "samples": embedded_samples(run.path),
    }


def marks(run: RunRecords, columns: Columns) -> list[dict[str, Any]]:
    """The rows where the policy became its own base, and where a stage began."""
    return [
        {"row": columns.row_of(step), "text": _mark(name, number)}
        for key, name in MARKED.items()
        for number, step in enumerate(run.rises(key), start=1)
    ]


def _mark(name: str, number: int) -> str:
    return f"stage {number + 1}" if name == "stage" else f"{name} {number}"


def _thinned(columns: Columns) -> str:
    if columns.per_row == 1:
        return ""
    return (
        f"<p class='note'>A point of a plot is the mean of {columns.per_row} steps (the highest, "
        "for maxima): metrics.jsonl has every step.</p>"
    )


def _details(run: RunRecords) -> str:
    settings = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
    overrides = "\n".join(run.overrides) or "none"
    parts = [
        [str(section), *(str(part.get(name) or "") for name in ("name", "import_path", "version"))]
        for section, part in run.components.items()
    ]
    return "".join(
        (
            _folded("All figures", _table(EXTREMES, _extremes(run), figures=4)),
            _folded("Parts", _table(("section", "name", "part", "version"), parts)),
            _folded("Overrides", f"<pre>{text(overrides)}</pre>"),
            _folded("Settings", f"<pre>{text(settings[:LONGEST_SETTINGS])}</pre>"),
        )
    )


def _extremes(run: RunRecords) -> list[list[str]]:
    rows = []
    for key in sorted({*run.keys("(?s:.)+")} - {STEP, SECONDS}):
        values = run.series(key)[1]
        finite = [value for value in values if math.isfinite(value)] or [math.nan]
        told = (values[0], values[-1], min(finite), max(finite))
        rows.append([key, *(f"{value:.4g}" for value in told)])
    return rows


def _folded(title: str, inner: str) -> str:
    return f"<details><summary>{text(title)}</summary>{inner}</details>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], figures: int = 0) -> str:
    """A table, whose last `figures` columns are numbers."""
    first = len(head) - figures

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ("" if i < first else ' class="figure"' for i in range(len(cells)))
        inner = (f"<{tag}{kind}>{text(c)}</{tag}>" for c, kind in zip(cells, kinds, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table>{line(head, "th")}{body}</table></div>'
