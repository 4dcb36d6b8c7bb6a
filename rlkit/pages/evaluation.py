"""The page of an evaluation: scores with their intervals, and responses to look at.

It has no script, and its policy forbids any: what models wrote is text in it and nothing else.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from rlkit.evaluation.figures import GREEDY
from rlkit.evaluation.score_table import cell, heading, ordered
from rlkit.evaluation.store import COLUMNS, Sample, Store
from rlkit.pages.html import asset, text
from rlkit.stored.files import write_whole

PAGE = "evaluation.html"
PROBLEMS = 20
"""Problems of a benchmark on the page."""
RESPONSES = 4
"""Responses to each, greedy ones included."""
LONGEST = 3_000
"""Characters of a prompt or a response."""
NAME = 20
"""Characters of a benchmark's name in the plot."""
ROW, LEFT, RIGHT, WIDE = 26, 150, 90, 700
"""Sizes of the plot of intervals: a row's height, margins, and the whole width."""

Results = Mapping[str, Any]


def write_page(store: Store, results: Results, chunks: Mapping[str, int]) -> Path:
    """Write evaluation.html beside the results; `chunks` says how many each benchmark has."""
    sections = [
        section(name, benchmark, chosen(store, name, chunks[name]))
        for name, benchmark in results["benchmarks"].items()
    ]
    model = results["settings"]["model"]
    body = "".join((summary(results), *sections))
    return write_whole(store.folder / PAGE, page(f"Evaluation of {model}", body))


def page(title: str, body: str) -> str:
    """A page in one file that may load nothing and run nothing."""
    style = asset("rlkit.css") + asset("evaluation.css")
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{style}</style></head>\n"
        f"<body><main><h1>{text(title)}</h1>{body}</main></body></html>\n"
    )


def summary(results: Results) -> str:
    """The settings, the notes, the plot and the table."""
    settings = ", ".join(f"{key} {value}" for key, value in results["settings"].items())
    notes = (note for each in results["benchmarks"].values() for note in each["notes"])
    suite = f"<p>Suite {text(results['suite'])}</p>" if results["suite"] else ""
    return (
        f'{suite}<p class="note">{text(settings)}</p>'
        + "".join(f'<p class="warning">{text(note)}</p>' for note in notes)
        + f"<h2>Scores</h2>{intervals(results)}"
        '<p class="note">pass@1 (dot) with its 95 % interval over problems; greedy as a ring.</p>'
        + table(results)
    )


def table(results: Results) -> str:
    """Every figure of every benchmark, and their macro average."""
    rows = {name: each["figures"] for name, each in results["benchmarks"].items()}
    if results["macro"] is not None:
        rows["macro average"] = results["macro"]
    names = ordered(list(dict.fromkeys(name for found in rows.values() for name in found)))
    head = "".join(f'<th class="figure">{text(heading(name))}</th>' for name in names)
    lines = "".join(
        f'<tr><td class="name">{text(label)}</td>'
        + "".join(f'<td class="figure">{text(cell(n, found.get(n)))}</td>' for n in names)
        + "</tr>"
        for label, found in rows.items()
    )
    return f'<div class="scroll"><table><tr><th></th>{head}</tr>{lines}</table></div>'


def intervals(results: Results) -> str:
    """pass@1 and greedy of each benchmark on one axis from 0 to 100 %."""
    rows = {name: each["figures"] for name, each in results["benchmarks"].items()}
    if results["macro"] is not None:
        rows["macro average"] = results["macro"]
    height = ROW * (len(rows) + 1)
    axis = "".join(
        f'<line class="axis" x1="{x(s)}" x2="{x(s)}" y1="4" y2="{height - ROW + 4}"/>'
        f'<text class="label" x="{x(s)}" y="{height - 6}" text-anchor="middle">{100 * s:.0f}</text>'
        for s in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    lines = "".join(
        bar(label, found, ROW * (i + 0.5)) for i, (label, found) in enumerate(rows.items())
    )
    return (
        f'<div class="scroll"><svg class="intervals" viewBox="0 0 {WIDE} {height}" role="img" '
        f'aria-label="pass@1 with intervals">{axis}{lines}</svg></div>'
    )


def bar(label: str, found: Mapping[str, Any], y: float) -> str:
    """A row of the plot."""
    parts = [f'<text x="0" y="{y + 4}">{text(shortened(label))}</text>']
    if one := found.get("pass@1"):
        parts.append(
            f'<line class="range" x1="{x(one["low"])}" x2="{x(one["high"])}" y1="{y}" y2="{y}"/>'
            f'<circle class="mean" cx="{x(one["value"])}" cy="{y}" r="4"/>'
        )
    if greedy := found.get(GREEDY):
        parts.append(f'<circle class="greedy" cx="{x(greedy["value"])}" cy="{y}" r="5"/>')
    shown = found.get("pass@1") or found.get(GREEDY)
    if shown:
        right = f'x="{WIDE}" y="{y + 4}" text-anchor="end"'
        parts.append(f"<text {right}>{100 * shown['value']:.1f} %</text>")
    return "".join(parts)


def shortened(label: str) -> str:
    """A label that fits left of the axis."""
    return label if len(label) <= NAME else f"{label[: NAME - 1]}\u2026"


def x(share: float) -> str:
    """Where a share lies on the axis."""
    return f"{LEFT + share * (WIDE - LEFT - RIGHT):.1f}"


def chosen(store: Store, name: str, chunks: int) -> list[list[Sample]]:
    """The samples of a few problems, spread from those never solved to those always solved."""
    rows = store.read(name, chunks, ("problem", "right"))
    marks: dict[int, list[bool]] = {}
    for row in rows:
        marks.setdefault(row["problem"], []).append(row["right"])
    order = sorted(marks, key=lambda problem: (sum(marks[problem]) / len(marks[problem]), problem))
    count = min(PROBLEMS, len(order))
    spread = [order[round(i * (len(order) - 1) / max(1, count - 1))] for i in range(count)]
    samples = store.read(name, chunks, tuple(COLUMNS), spread)
    samples.sort(key=lambda row: (spread.index(row["problem"]), row["greedy"], row["sample"]))
    return [list(group) for _, group in groupby(samples, key=lambda row: row["problem"])]


def section(name: str, benchmark: Mapping[str, Any], problems: Sequence[Sequence[Sample]]) -> str:
    """A benchmark: what to know of it, and the problems chosen."""
    settings = ", ".join(f"{key} {value}" for key, value in benchmark["settings"].items())
    of = benchmark["settings"]["problems"]
    return (
        f"<h2>{text(name)}</h2><p>{text(benchmark['title'])}</p>"
        f'<p class="note">{text(benchmark["flaws"])}</p>'
        f'<p class="note">{text(benchmark["source"])}: {text(settings)}</p>'
        f'<p class="note">{len(problems)} of {of} problems, hardest first</p>'
        + "".join(map(problem, problems))
    )


def problem(samples: Sequence[Sample]) -> str:
    """A problem with its answer and some of its responses."""
    one = samples[0]
    right = sum(row["right"] for row in samples)
    title = (
        f"{one['id'] or one['problem']}: {right} of {len(samples)} right, answer {one['answer']}"
    )
    greedy = [row for row in samples if row["greedy"]]
    sampled = [row for row in samples if not row["greedy"]]
    shown = [*sampled[: RESPONSES - len(greedy)], *greedy]
    return (
        f'<details class="card problem"><summary>{text(title, 200)}</summary>'
        f'<div class="model-text">{text(middle(one["prompt"]))}</div>'
        + "".join(response(row) for row in shown)
        + "</details>"
    )


def response(row: Sample) -> str:
    """A response with its mark."""
    kind = "greedy" if row["greedy"] else f"sample {row['sample']}"
    mark = "right" if row["right"] else "wrong"
    words = [kind, mark, f"{row['tokens']} tokens", f"ended by {row['finish_reason']}"]
    given = "" if row["given"] is None else f", answer {row['given']}"
    return (
        f'<div class="response {mark}"><p class="note">{text(", ".join(words) + given, 300)}</p>'
        f'<div class="model-text">{text(middle(row["response"]))}</div></div>'
    )


def middle(whole: str) -> str:
    """A text, or its beginning and its end if it is long: the answer is at the end."""
    if len(whole) <= LONGEST:
        return whole
    left = f"\n... ({len(whole) - LONGEST:,} characters left out) ...\n"
    return whole[: LONGEST // 3] + left + whole[-(LONGEST - LONGEST // 3) :]
