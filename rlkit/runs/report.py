"""A run's metrics as one self-contained HTML page, and several runs on one page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from rlkit.errors import UserError

STEP, ROLLOUTS, SECONDS = "step", "rollouts/total", "time/total"
"""The axes. The last is not logged: it is the sum of time/step, so evaluation is not in it."""
REPORT = "report.html"
PASS = r"eval/(.+/)?pass@1"
EXTREMES = ("metric", "first", "last", "lowest", "highest")
Record = Mapping[str, Any]
Figure = dict[str, Any]
"""A figure, or a part of one, in plotly's JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot: every metric whose whole key matches `keys`, over `x`."""

    title: str
    keys: str
    x: str = STEP
    stacked: bool = False
    unit: str = ""


PANELS = (
    Panel(title="Held-out accuracy over responses", keys=r"eval/.*(pass@\d+|greedy)", x=ROLLOUTS),
    Panel(title="Held-out accuracy over steps", keys=r"eval/.*(pass@\d+|greedy)"),
    Panel(title="Reward", keys=r"reward/(.+/)?(mean|std)"),
    Panel(title="Reward failures", keys=r"reward/(errors|timeouts|lost)", unit="per step"),
    Panel(title="Response length", keys=r"completions/mean_length", unit="tokens"),
    Panel(title="Responses cut at the length limit", keys=r"completions/clipped_ratio"),
    Panel(title="Ratio by age in steps", keys=r"policy/ratio_(mean(_age_\d+)?|max)"),
    Panel(title="Clip fraction by age in steps", keys=r"policy/clip_fraction(_age_\d+)?"),
    Panel(title="KL", keys=r"anchor/kl(_.+)?|off_policy/(engine_)?kl", unit="nats per token"),
    Panel(title="Anchor weights", keys=r"anchor/weight_.+"),
    Panel(title="Entropy", keys=r"policy/entropy", unit="nats per token"),
    Panel(title="Effective sample size", keys=r"off_policy/ess"),
    Panel(title="Corrections", keys=r"correction/.+"),
    Panel(title="Age of the trained batch", keys=r"buffer/age_(mean|max)", unit="steps"),
    Panel(title="Fresh share and reuse", keys=r"buffer/(fresh_fraction|reuse_mean)"),
    Panel(title="Loss", keys=r"policy/loss|critic/loss"),
    Panel(title="Gradient norm", keys=r"policy/grad_norm"),
    Panel(title="Critic's explained variance", keys=r"critic/explained_variance"),
    Panel(
        title="Seconds per step", keys=r"time/(rollout|reward|forward|update|sync)", stacked=True
    ),
)
"""What a run's page shows, in this order; a panel without a matching metric is left out."""

STYLE = """body{font:15px/1.45 system-ui,sans-serif;max-width:1280px;
margin:2em auto;padding:0 1.5em;color:#222}
td,th{padding:.1em .9em .1em 0;text-align:left}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(460px,1fr));gap:.5em}
.plots>*{min-width:0;overflow:hidden}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecords:
    """What a run left in its run folder."""

    path: Path
    records: Sequence[Record]
    config: Record
    components: Record
    overrides: Sequence[str]

    def series(self, key: str, x: str = STEP) -> tuple[list[float], list[float]]:
        """A metric over steps or responses: x and y of every record that holds it, and its x."""
        points = [(r[x], r[key]) for r in self.records if key in r and x in r]
        return [p[0] for p in points], [p[1] for p in points]

    def keys(self, pattern: str) -> list[str]:
        """The metrics whose whole key matches, in order of appearance; age_10 after age_9."""
        seen = dict.fromkeys(key for record in self.records for key in record)
        found = [key for key in seen if re.fullmatch(pattern, key)]
        return sorted(found, key=lambda key: int(m[1]) if (m := re.search(r"_(\d+)$", key)) else -1)

    def rebirths(self, x: str) -> list[float]:
        """The points on the axis `x` where the policy became its own base."""
        steps, counts = self.series("schedule/rebirths", x)
        previous = [0.0, *counts]
        return [s for s, was, now in zip(steps, previous, counts, strict=False) if now > was]


def read_run(run_dir: Path) -> RunRecords:
    """Read a run folder. Raises UserError if there are no metrics or a line is not JSON.

    A last line without its newline is still being written, and is left out.
    """
    path = run_dir / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{run_dir} holds no run: there is no metrics.jsonl in it")
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    if not lines:
        raise UserError(f"{path} is empty: the run has not logged anything yet")
    try:
        records = [json.loads(line) for line in lines]
    except ValueError as error:
        raise UserError(f"{path} holds a line that is not JSON: {error}") from None
    return RunRecords(
        path=run_dir,
        records=_on_all_axes(records),
        config=yaml.safe_load(_text(run_dir / "config.yaml")) or {},
        components=json.loads(_text(run_dir / "components.json") or "{}"),
        overrides=_text(run_dir / "overrides").splitlines(),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _on_all_axes(records: Sequence[Record]) -> list[Record]:
    """Give every record the responses generated and the seconds trained up to it."""
    rollouts, seconds = 0, 0.0
    out: list[Record] = []
    for record in records:
        rollouts = record.get(ROLLOUTS, rollouts)
        seconds += record.get("time/step", 0.0)
        out.append({**record, ROLLOUTS: rollouts, SECONDS: seconds})
    return out


def write_report(run_dir: Path) -> Path:
    """Write <run_dir>/report.html and return its path. Raises UserError as `read_run` does."""
    run = read_run(run_dir)
    figures = [figure for panel in PANELS if (figure := _panel_figure(panel, run)) is not None]
    settings = yaml.safe_dump(dict(run.config), sort_keys=False)
    body = [
        _table("Composition", ("section", "name", "part", "version"), _composition(run)),
        f"<p>Overrides: <code>{escape(' '.join(run.overrides)) or 'none'}</code></p>",
        _plots(figures),
        _table("Figures", EXTREMES, _extremes(run, ".+/.+")),
        f"<details><summary>Settings</summary><pre>{escape(settings)}</pre></details>",
    ]
    out = run_dir / REPORT
    out.write_text(_page(f"rlkit run {run_dir.resolve().name}", body), encoding="utf-8")
    return out


def compare_report(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write one page that overlays the runs' pass@1 over responses, steps and training seconds."""
    named = _named([read_run(path) for path in run_dirs])
    if not any(run.keys(PASS) for run in named.values()):
        raise UserError("none of these runs holds an evaluation (eval/pass@1): nothing to compare")
    axes = ((ROLLOUTS, "responses"), (STEP, "steps"), (SECONDS, "seconds of training"))
    rows = [
        (name, *figures, " ".join(run.overrides))
        for name, run in named.items()
        for figures in _extremes(run, PASS)
    ]
    body = [
        _plots([_overlay(named, x, label) for x, label in axes]),
        _table("Runs", ("run", *EXTREMES, "overrides"), rows),
    ]
    out.write_text(_page("rlkit runs compared", body), encoding="utf-8")
    return out


def _named(runs: Sequence[RunRecords]) -> dict[str, RunRecords]:
    """Runs by folder name, or by whole path if two folders share a name."""
    short = [run.path.resolve().name for run in runs]
    return {
        name if short.count(name) == 1 else str(run.path): run
        for name, run in zip(short, runs, strict=True)
    }


def _composition(run: RunRecords) -> list[tuple[str, ...]]:
    return [
        (section, part["name"], part["import_path"], part["version"] or "")
        for section, part in run.components.items()
    ]


def _extremes(run: RunRecords, pattern: str) -> list[tuple[str, ...]]:
    rows = []
    for key in sorted(run.keys(pattern)):
        values = run.series(key)[1]
        rows.append((key, *(f"{v:.4g}" for v in (values[0], values[-1], min(values), max(values)))))
    return rows


def _panel_figure(panel: Panel, run: RunRecords) -> Figure | None:
    keys = run.keys(panel.keys)
    if not keys:
        return None
    stack = {"stackgroup": "all"} if panel.stacked else {}
    return _figure(
        (panel.title, "responses" if panel.x == ROLLOUTS else "step", panel.unit),
        [_line(key, run.series(key, panel.x), **stack) for key in keys],
        marks=dict.fromkeys(run.rebirths(panel.x), "rebirth"),
    )


def _overlay(named: Mapping[str, RunRecords], x: str, label: str) -> Figure:
    return _figure(
        (f"Held-out accuracy over {label}", label, "pass@1"),
        [
            _line(f"{name} {key}", run.series(key, x))
            for name, run in named.items()
            for key in run.keys(PASS)
        ],
    )


def _line(name: str, points: tuple[list[float], list[float]], **more: str) -> Figure:
    return {"type": "scatter", "name": name, "x": points[0], "y": points[1], **more}


def _figure(
    titles: tuple[str, str, str],
    lines: Sequence[Figure],
    marks: Mapping[float, str] = MappingProxyType({}),
) -> Figure:
    """A figure in plotly's JSON: its title and those of its axes, lines, and named points of x."""
    title, x, y = titles
    vertical = {"x0": 0.0, "x1": 0.0, "y0": 0, "y1": 1, "xref": "x", "yref": "y domain"}
    named = {"y": 1, "xref": "x", "yref": "y domain", "showarrow": False, "xanchor": "left"}
    return {
        "data": list(lines),
        "layout": {
            "title": {"text": title},
            "height": 360,
            "template": _template(),
            "showlegend": True,
            "xaxis": {"title": {"text": x}},
            "yaxis": {"title": {"text": y}},
            "legend": {"orientation": "h", "y": -0.25},
            "shapes": [
                {"type": "line", **vertical, "x0": at, "x1": at, "line": {"dash": "dot"}}
                for at in marks
            ],
            "annotations": [{**named, "x": at, "text": text} for at, text in marks.items()],
        },
    }


@cache
def _template() -> Figure:
    from plotly import io

    template: Figure = io.templates["plotly_white"].to_plotly_json()
    return template


def _plots(figures: Sequence[Figure]) -> str:
    """The figures side by side; as plain JSON, since checking every field takes plotly a second."""
    from plotly import io

    settings = {"responsive": True}
    divs = (
        io.to_html(figure, config=settings, include_plotlyjs=False, full_html=False, validate=False)
        for figure in figures
    )
    return f'<div class="plots">{"".join(f"<div>{div}</div>" for div in divs)}</div>'


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<h2>{escape(title)}</h2><table><tr>{top}</tr>{body}</table>"


def _page(title: str, body: Sequence[str]) -> str:
    """A page that needs nothing from the network: plotly's script is part of it."""
    from plotly.offline import get_plotlyjs

    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f"<body><h1>{escape(title)}</h1>{''.join(body)}</body></html>"
    )
