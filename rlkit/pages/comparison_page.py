"""A comparison of runs as one page: the table, and curves with the middle half of the seeds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rlkit.pages.columns import AXES, rounded
from rlkit.pages.comparison import (
    caption,
    csv_text,
    heads,
    interval_text,
    reach_text,
    score_text,
)
from rlkit.pages.curves import Line, common_grid, curve, thinned
from rlkit.pages.figures import Comparison, Row
from rlkit.pages.html import document, text
from rlkit.pages.report import REPORT
from rlkit.pages.score import PASS, named
from rlkit.runs.records import ROLLOUTS, SECONDS, STEP, RunRecords
from rlkit.stored.files import write_whole

TITLE = "Runs compared"
SCRIPTS, STYLES = ("compare.js",), ("report.css", "compare.css")
SCORES = rf"{PASS}|eval/(?!source/)(.+/)?(pass@\d+|maj@\d+|greedy|win_rate)"
TRAINING = {
    "reward/mean": ("Reward in training", ""),
    "completions/mean_length": ("Response length", "tokens"),
    "policy/entropy": ("Entropy", "nats per token"),
    "policy/clip_fraction": ("Clip fraction", ""),
    "anchor/kl": ("KL to the anchor", "nats per token"),
    "off_policy/ess": ("Effective sample size", "share of the batch"),
}
"""What is drawn besides scores: title and unit by metric."""
DRAWN = 16
"""Groups that are drawn; the table has all of them."""
PHONE_HEADS = ("seeds", "score", "responses to target", "seconds to target")
PALETTE = 8
"""Colors of rlkit.css: --c0 and so on."""


def write_comparison(comparison: Comparison, out: Path) -> Path:
    """Write the page, with links to the reports of the runs. Raises UserError if that fails."""
    return write_whole(out, page(comparison, report_links(comparison, out.parent)))


def slim(run: RunRecords, metric: str | None = None) -> RunRecords:
    """A run with no more of its metrics than a comparison shows: a tenth of the memory."""
    wanted = {*AXES, *TRAINING, metric, *run.keys(SCORES)}
    records = [{key: value for key, value in r.items() if key in wanted} for r in run.records]
    return replace(run, records=records)


def page(
    comparison: Comparison, links: Mapping[Path, str] | None = None, *, connect: bool = False
) -> str:
    """The page; `links` are the addresses of the pages of single runs, by run folder.

    With `connect` it follows the runs by asking the server that it comes from.
    """
    body = (
        f'<header class="wrap" data-live="head"><h1>{TITLE}</h1>'
        f'<p class="soft">{text(caption(comparison))}. {_target(comparison)}</p></header>'
        '<div class="switches"><div id="switches"><nav id="index"></nav></div></div><main>'
        f'<section id="table" data-live="table">{_table(comparison)}{_notes(comparison)}</section>'
        f"</main><footer class='wrap' data-live='runs'>{_runs(comparison, links or {})}</footer>"
        "<noscript><p class='wrap'>The plots need JavaScript.</p></noscript>"
    )
    title = f"{TITLE} · rlkit"
    return document(title, body, data(comparison), SCRIPTS, STYLES, connect=connect)


def report_links(comparison: Comparison, folder: Path) -> dict[Path, str]:
    """The reports that lie in the run folders, as seen from a folder."""
    found = (run.path / REPORT for row in comparison.rows for run in row.group.runs.values())
    return {
        path.parent: quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())
        for path in found
        if path.is_file()
    }


def data(comparison: Comparison) -> dict[str, Any]:
    """What the page's script reads: each plot over each axis, and the table as CSV."""
    rows = comparison.rows[:DRAWN]
    runs = [run for row in rows for run in row.group.runs.values()]
    scores = dict.fromkeys(key for run in runs for key in run.keys(SCORES))
    keys = sorted(scores, key=lambda key: key != comparison.metric)
    plots = [_plot(key, f"Held-out {named(key)}", "", rows) for key in keys]
    shown = {comparison.metric: (comparison.metric, ""), **TRAINING}
    plots += [
        _plot(key, title, unit, rows)
        for key, (title, unit) in shown.items()
        if key not in scores and any(run.keys(key) for run in runs)
    ]
    return {
        "labels": {axis: AXES[axis] for axis in (ROLLOUTS, STEP, SECONDS)},
        "plots": plots,
        "csv": csv_text(comparison),
    }


def _plot(key: str, title: str, unit: str, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "name": key,
        "title": title,
        "unit": unit,
        "over": {axis: _drawing(key, axis, rows) for axis in (ROLLOUTS, STEP, SECONDS)},
    }


def _drawing(key: str, axis: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each group's curve, at the points where its own runs have values."""
    out = []
    for row in rows:
        lines = [_line(run, key, axis) for run in row.group.runs.values()]
        grid = common_grid(lines)
        found = curve(lines, grid)
        one = {"label": row.group.label, "x": _short(grid), "y": _short(found.median)}
        if len(lines) > 1:
            one |= {"low": _short(found.low), "high": _short(found.high)}
        out.append(one)
    return out


def _line(run: RunRecords, key: str, axis: str) -> Line:
    return thinned(run.series(key, axis))


def _short(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else rounded(value) for value in values]


def _target(comparison: Comparison) -> str:
    if comparison.target is None:
        return "No group gained anything, so there is no target."
    return f"The target is {comparison.target:.3g}, {text(comparison.target_words)}."


def _table(comparison: Comparison) -> str:
    first, *figures, last = (text(name) for name in heads(comparison))
    middle = "".join(f'<th class="figure">{name}</th>' for name in figures)
    head = f"<th>{first}</th>{middle}<th>{last}</th>"
    lines = "".join(_row(row, place) for place, row in enumerate(comparison.rows))
    return (
        '<div class="card scroll"><table class="groups">'
        f"<tr>{head}</tr>{lines}</table></div>"
        '<p class="tools"><button type="button" id="csv">Download as CSV</button></p>'
    )


def _row(row: Row, place: int) -> str:
    swatch = f'<i class="dot g{place % PALETTE}"></i>' if place < DRAWN else ""
    late = "" if row.finished else f" at step {row.step:g} of {row.steps:g}"
    runs = len(row.scores)
    told = score_text(row).partition(" ")
    cells = (
        f"<b>{told[0]}</b> <span class='soft'>{text(told[2] + late)}</span>",
        text(reach_text(row.reached[ROLLOUTS], runs)),
        text(reach_text(row.reached[SECONDS], runs)),
    )
    figures = "".join(
        f'<td class="figure" data-head="{head}">{cell}</td>'
        for head, cell in zip(PHONE_HEADS, (str(runs), *cells), strict=True)
    )
    label = f"<td>{swatch}{text(row.group.label)}</td>"
    against = ' data-head="minus the baseline"' if row.difference else ""
    return f"<tr>{label}{figures}<td{against}>{_difference(row)}</td></tr>"


def _difference(row: Row) -> str:
    if row.difference is None:
        return '<span class="soft">baseline</span>'
    found = row.difference.estimate
    interval = f" <span class='soft'>{interval_text(found, '+')}</span>" if found.n > 1 else ""
    kind = row.difference.words if row.difference.distinguishable else "soft"
    pairs = ", by seed" if row.difference.paired and found.n > 1 else ""
    return (
        f'<span class="nowrap">{found.value:+.3f}{interval}{pairs}</span>'
        f'<br><span class="{kind}">{text(row.difference.words)}</span>'
    )


def _notes(comparison: Comparison) -> str:
    notes = list(comparison.notes)
    if len(comparison.rows) > DRAWN:
        notes.append(f"the plots show the first {DRAWN} of {len(comparison.rows)} groups")
    return "".join(f'<p class="note">Note: {text(note)}.</p>' for note in notes)


def _runs(comparison: Comparison, links: Mapping[Path, str]) -> str:
    lines = []
    for row in comparison.rows:
        for seed, run in row.group.runs.items():
            name = text(str(run.path))
            link = links.get(run.path)
            shown = f'<a href="{text(link)}">{name}</a>' if link else name
            score = f"{row.scores[seed]:.3f}"
            cells = f"<td>{text(row.group.label)}</td><td>{text(seed)}</td>"
            lines.append(f'<tr>{cells}<td class="figure">{score}</td><td>{shown}</td></tr>')
    head = '<tr><th>group</th><th>seed</th><th class="figure">score</th><th>run</th></tr>'
    table = f'<div class="scroll"><table>{head}{"".join(lines)}</table></div>'
    return f"<details open><summary>Runs</summary>{table}</details>"
