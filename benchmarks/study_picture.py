"""The picture of a study: how its first hypothesis learns, and what each hypothesis comes to.

    python benchmarks/study_picture.py benchmarks/studies/table3.yaml   # docs/table3.png

Left: medians and quartiles over seeds of the two ways of the first hypothesis, and of the control
of the better one. Right: the difference of every hypothesis that is said once and on what the first
one is on, scores or costs, with its 95% paired t interval and one point per seed.

A study with an axis has another picture: the score of every way over it, medians and quartiles.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import RESULTS, ROOT, status_of
from study_figures import Curve, along, reported, scores, spread
from study_file import Hypothesis, Study, read_study
from study_results import Row, check_unchanged, read_results
from study_verdict import Found, gains, verdicts

from rlkit.errors import UserError

COLORS = ("#c2410c", "#1d4ed8", "#6b7280")
POINTS = 60
"""Values of x at which the curves of the seeds are read."""
WORDS = {"responses": "generated responses", "tokens": "generated tokens", "step": "step"}


def shown(study: Study) -> list[str]:
    """The ways whose curves are drawn: the better one, the other, and the better one's control."""
    first = study.hypotheses[0]
    control = study.variants[first.better].control
    return list(dict.fromkeys(name for name in (first.better, first.than, control) if name))


def band(runs: Mapping[int, Curve], unit: str, most: float) -> list[tuple[float, Any]]:
    """(x, quartiles over seeds) up to the budget."""
    lines = [[(getattr(row, unit), row.score) for row in run] for run in runs.values()]
    places = [most * i / POINTS for i in range(POINTS + 1)]
    return [(x, spread([along(line, x) for line in lines])) for x in places]


def most(study: Study, found: Found) -> float:
    """How far the curves go: to the budget, or to the first end of a run if costs are compared."""
    unit = study.metric.unit
    ends = [getattr(r[-1], unit) for n in shown(study) for r in found[n, None].values()]
    return float(min(ends)) if study.hypotheses[0].cost else study.metric.amount


def draw_curves(axes: Any, study: Study, found: Found) -> None:
    """Score over what the budget counts."""
    metric, end = study.metric, most(study, found)
    for name, color in zip(shown(study), COLORS, strict=False):
        points = band(found[name, None], metric.unit, end)
        x = [place for place, _ in points]
        style = "--" if name == study.variants[study.hypotheses[0].better].control else "-"
        axes.plot(x, [each.middle for _, each in points], style, color=color, label=name)
        low, high = [each.low for _, each in points], [each.high for _, each in points]
        axes.fill_between(x, low, high, color=color, alpha=0.12, lw=0)
    if study.hypotheses[0].cost:
        axes.axhline(metric.target, color="black", lw=0.8, ls=":")
    axes.set(xlabel=WORDS.get(metric.unit, metric.unit), ylabel="held-out pass@1", ylim=(0, 1))
    axes.legend(frameon=False, loc="best")


def compared(study: Study, found: Found, claim: Hypothesis) -> list[float]:
    """By seed, what the claim is on: the better way's score less the other's, or -log of costs."""
    theirs, ours = (gains(study, found, (name, None), claim) for name in (claim.than, claim.better))
    return [ours[seed] - theirs[seed] for seed in theirs if seed in ours]


def as_ratio(difference: float) -> float:
    """Our cost over theirs."""
    return math.exp(-difference)


def draw_differences(axes: Any, study: Study, rows: Sequence[Row], found: Found) -> None:
    """A line per hypothesis: its interval, its mean, its seeds; on a log scale for costs."""
    first = study.hypotheses[0]
    alike = [c for c in study.hypotheses if (c.cost, c.of) == (first.cost, first.of)]
    cost, claims = first.cost, [c for c in alike if not c.ratios and not c.at]
    on_axis = as_ratio if cost else float
    for place, claim in enumerate(claims):
        (verdict,) = verdicts(study, rows, found, claim)
        assert verdict.difference is not None
        estimate = verdict.difference.estimate
        color = COLORS[2] if verdict.words.startswith("open") else COLORS[0]
        ends = [on_axis(each) for each in (estimate.low, estimate.high)]
        axes.plot(ends, [place, place], color=color, lw=2)
        axes.plot([on_axis(estimate.value)], [place], "o", color=color, ms=6)
        seeds = [on_axis(each) for each in compared(study, found, claim)]
        axes.plot(seeds, [place + 0.22] * len(seeds), "|", color=color, ms=6, alpha=0.7)
    names = [f"{claim.better}\nagainst {claim.than}" for claim in claims]
    axes.set_yticks(range(len(claims)), names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(on_axis(0.0), color="black", lw=0.8)
    if cost is None:
        amount, unit = f"{study.metric.amount:,g}", study.metric.unit
        where = f"step {amount}" if unit == "step" else f"{amount} {unit}"
        axes.set(xlabel=f"difference at {where}")
        axes.locator_params(axis="x", nbins=6)
        return
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    axes.set(xscale="log", xlabel=f"{cost} to {study.metric.target:g}, over the other's")
    axes.set_xticks([each for each in (0.25, 0.5, 1, 2, 4) if _inside(axes, each)])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _inside(axes: Any, place: float) -> bool:
    """Whether it is on the axis."""
    low, high = axes.get_xlim()
    return bool(low <= place <= high)


def draw_axis(axes: Any, study: Study, found: Found) -> None:
    """Every way's score over the axis, on a log scale; the ways stand side by side."""
    assert study.axis is not None
    values = study.axis.values
    for number, name in enumerate(study.variants):
        shift = 1 + 0.03 * (number - (len(study.variants) - 1) / 2)
        places = [at for at in values if (name, at) in found]
        each = [spread([*scores(found[name, at], study.metric).values()]) for at in places]
        middles = [one.middle for one in each]
        ends = [[m - one.low for m, one in zip(middles, each, strict=True)]]
        ends.append([one.high - m for m, one in zip(middles, each, strict=True)])
        x = [at * shift for at in places]
        axes.errorbar(x, middles, yerr=ends, marker="o", ms=4, capsize=2, label=name)
    axes.set(xscale="log", xlabel=study.axis.name, ylabel="held-out pass@1", ylim=(0, 1))
    axes.set_xticks(values, [f"{at:g}" for at in values])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)


def draw(study: Study, rows: Sequence[Row], path: Path) -> None:
    """Write the picture."""
    import matplotlib.pyplot as plt

    found = reported(rows)
    if study.axis is not None:
        figure, axes = plt.subplots(figsize=(7, 3.8))
        draw_axis(axes, study, found)
        every = [axes]
    else:
        figure, every = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=(1.1, 1))
        draw_curves(every[0], study, found)
        draw_differences(every[1], study, rows, found)
    for axes in every:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def draw_results(path: Path, folder: Path, out: Path | None) -> None:
    """Draw the results of a study's file. Raises UserError where there is nothing to draw."""
    study = read_study(path)
    results = folder / f"{study.name}.parquet"
    check_unchanged(study, results)
    if not results.is_file():
        raise UserError(f"{study.name} has not been run: {results} does not exist")
    before, rows = read_results(results)
    drawn = study.cells if study.axis else [(name, None) for name in shown(study)]
    if not {*drawn} <= {*reported(rows)}:
        raise UserError(f"{study.name} lacks runs that the picture shows")
    draw(before, rows, out or ROOT / "docs" / f"{study.name}.png")


def main() -> int:
    """Draw a study that has been run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="a file of benchmarks/studies/")
    parser.add_argument("--results", type=Path, default=RESULTS / "studies")
    parser.add_argument("--out", type=Path, help="docs/<name>.png if left out")
    options = parser.parse_args()
    return status_of(lambda: draw_results(options.study, options.results, options.out))


if __name__ == "__main__":
    sys.exit(main())
