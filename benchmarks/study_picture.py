"""The picture of a study: how its first hypothesis learns, and what each hypothesis comes to.

    python benchmarks/study_picture.py benchmarks/studies/table3.yaml   # docs/table3.png

Left: medians and quartiles over seeds of the two ways of the first hypothesis, and of the control
of the better one. Right: the difference of every hypothesis that is said once, with its 95% paired
t interval and one point per seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import RESULTS, ROOT, status_of
from study_figures import Curve, along, reported, scores, spread
from study_file import Study, read_study
from study_results import Row, check_unchanged, read_results
from study_verdict import Found, verdicts

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


def draw_curves(axes: Any, study: Study, found: Found) -> None:
    """Score over what the budget counts."""
    metric = study.metric
    for name, color in zip(shown(study), COLORS, strict=False):
        points = band(found[name, None], metric.unit, metric.amount)
        x = [place for place, _ in points]
        style = "--" if name == study.variants[study.hypotheses[0].better].control else "-"
        axes.plot(x, [each.middle for _, each in points], style, color=color, label=name)
        low, high = [each.low for _, each in points], [each.high for _, each in points]
        axes.fill_between(x, low, high, color=color, alpha=0.12, lw=0)
    axes.set(xlabel=WORDS.get(metric.unit, metric.unit), ylabel="held-out pass@1", ylim=(0, 1))
    axes.legend(frameon=False, loc="lower right")


def draw_differences(axes: Any, study: Study, rows: Sequence[Row], found: Found) -> None:
    """A line per hypothesis: its interval, its mean, its seeds."""
    claims = [claim for claim in study.hypotheses if not claim.ratios and not claim.at]
    for place, claim in enumerate(claims):
        (verdict,) = verdicts(study, rows, found, claim)
        assert verdict.difference is not None
        estimate = verdict.difference.estimate
        ours = scores(found[claim.better, None], study.metric)
        theirs = scores(found[claim.than, None], study.metric)
        color = COLORS[2] if verdict.words.startswith("open") else COLORS[0]
        axes.plot([estimate.low, estimate.high], [place, place], color=color, lw=2)
        axes.plot([estimate.value], [place], "o", color=color, ms=6)
        seeds = [ours[seed] - theirs[seed] for seed in theirs if seed in ours]
        axes.plot(seeds, [place + 0.22] * len(seeds), "|", color=color, ms=6, alpha=0.7)
    names = [f"{claim.better}\nagainst {claim.than}" for claim in claims]
    axes.set_yticks(range(len(claims)), names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=0.8)
    axes.set(xlabel=f"difference at {study.metric.amount:,g} {study.metric.unit}")


def draw(study: Study, rows: Sequence[Row], path: Path) -> None:
    """Write the picture."""
    import matplotlib.pyplot as plt

    found = reported(rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=(1.1, 1))
    draw_curves(left, study, found)
    draw_differences(right, study, rows, found)
    for axes in (left, right):
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
    if study.axis is not None or not {(n, None) for n in shown(study)} <= {*reported(rows)}:
        raise UserError(f"{study.name} has no picture of this kind, or not yet")
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
