"""Several runs on one page: their scores over responses, steps and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.errors import UserError
from rlkit.pages.columns import AXES, rounded
from rlkit.pages.html import document, text
from rlkit.pages.score import PASS
from rlkit.runs.records import ROLLOUTS, SECONDS, STEP, RunRecords, read_run

HEAD = ("run", "metric", "first", "last", "lowest", "highest", "overrides")


def compare_report(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write one page that overlays the runs' pass@1 over responses, steps and training seconds."""
    named = _named([read_run(path) for path in run_dirs])
    if not any(run.keys(PASS) for run in named.values()):
        raise UserError("none of these runs holds an evaluation (eval/pass@1): nothing to compare")
    body = (
        '<main><h1>rlkit runs compared</h1><div class="plots" id="plots"></div>'
        f"<h2>Runs</h2>{_table(named)}</main>"
    )
    page = document("rlkit runs compared", body, _data(named), ["compare.js"])
    out.write_text(page, encoding="utf-8")
    return out


def _named(runs: Sequence[RunRecords]) -> dict[str, RunRecords]:
    """Runs by folder name, or by whole path if two folders share a name."""
    short = [run.path.resolve().name for run in runs]
    return {
        name if short.count(name) == 1 else str(run.path): run
        for name, run in zip(short, runs, strict=True)
    }


def _data(named: Mapping[str, RunRecords]) -> dict[str, Any]:
    plots = []
    for axis in (ROLLOUTS, STEP, SECONDS):
        lines = []
        for name, run in named.items():
            for key in run.keys(PASS):
                x, y = run.series(key, axis)
                points = [[*map(rounded, x)], [*map(rounded, y)]]
                lines.append({"label": f"{name} {key}", "points": points})
        plots.append({"title": f"Held-out score over {AXES[axis]}", "lines": lines})
    return {"plots": plots}


def _table(named: Mapping[str, RunRecords]) -> str:
    rows: list[tuple[str, ...]] = [HEAD]
    for name, run in named.items():
        for key in run.keys(PASS):
            y = run.series(key)[1]
            ends = (f"{v:.4g}" for v in (y[0], y[-1], min(y), max(y)))
            rows.append((name, key, *ends, " ".join(run.overrides)))
    cells = ("".join(f"<td>{text(cell)}</td>" for cell in row) for row in rows)
    lines = "".join(f"<tr>{line}</tr>" for line in cells)
    return f'<div class="scroll"><table>{lines}</table></div>'
