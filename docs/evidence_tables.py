"""The tables of docs/evidence.md: scores, learning rates, the way there, equal compute."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, median

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path += [str(BENCHMARKS)] if str(BENCHMARKS) not in sys.path else []

from performance import row  # noqa: E402
from study_figures import (  # noqa: E402
    COSTS,
    Curve,
    at_equal_compute,
    compared,
    cost,
    paired,
    savings,
    score,
    scores,
    spread,
    sweeps,
)
from study_file import Cell, Study  # noqa: E402
from study_results import Row  # noqa: E402
from study_verdict import Found  # noqa: E402

from rlkit.pages.comparison import interval_text  # noqa: E402
from rlkit.pages.figures import HOLDS_0, Difference  # noqa: E402


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join([row(head), "|" + "---|" * len(head), *map(row, rows)])


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def name_of(study: Study, cell: Cell) -> str:
    """A variant, and where on the axis."""
    variant, at = cell
    return variant if at is None or study.axis is None else f"{variant}, {study.axis.name} {at:g}"


def difference_text(found: Difference | None) -> str:
    """A difference, its interval and what it says; nothing if the interval holds 0."""
    if found is None:
        return "not yet run"
    return f"{estimate_text(found)} {said(found)}".rstrip()


def said(found: Difference) -> str:
    """What an interval says, in bold where it leaves no difference open; empty if it holds 0."""
    if found.words == HOLDS_0:
        return ""
    return f"**{found.words}**" if found.words in ("better", "worse") else found.words


def estimate_text(found: Difference) -> str:
    """A difference and its interval."""
    interval = f" {interval_text(found.estimate, '+')}" if found.estimate.n > 1 else ""
    return f"{found.estimate.value:+.3f}{interval}"


def ratio_text(found: Difference) -> str:
    """One cost over another, with its interval, from the difference of -log of both."""
    each = found.estimate
    middle, low, high = (math.exp(-value) for value in (each.value, each.high, each.low))
    return f"{middle:.2f}" + (f" [{low:.2f}, {high:.2f}]" if each.n > 1 else "")


def ratio_words(found: Difference) -> str:
    """A ratio of costs, its interval and what it says."""
    words = {"**better**": "**fewer**", "**worse**": "**more**"}
    return f"{ratio_text(found)} {words.get(said(found), said(found))}".rstrip()


def cost_text(runs: Iterable[Curve], study: Study, unit: str) -> str:
    """The median cost to the target."""
    values = [cost(run, study.metric, unit) for run in runs]
    got = sum(map(math.isfinite, values))
    middle = median(values)
    if not math.isfinite(middle):
        return f"not reached ({got} of {len(values)} did)"
    return f"{middle:,.0f}" + (f" ({got} of {len(values)})" if got < len(values) else "")


def score_table(study: Study, found: Found) -> str:
    """Scores and differences."""
    controls = any(variant.control for variant in study.variants.values())
    head = ["way", "seeds", f"{study.metric.key}", f"less {study.baseline}"]
    head += ["less its control"] if controls else []
    rows = []
    for cell in study.cells:
        if cell not in found:
            continue
        runs, (variant, at) = found[cell], cell
        values = spread([*scores(runs, study.metric).values()])
        line = [
            name_of(study, cell),
            str(values.n),
            f"{values.middle:.3f} ({values.low:.3f} to {values.high:.3f})",
        ]
        base = (study.baseline, at)
        line += ["" if cell == base else difference_text(compared(found, cell, base, study.metric))]
        control = study.variants[variant].control
        if controls:
            other = compared(found, cell, (control, at), study.metric) if control else None
            line += [f"{control}: {difference_text(other)}" if control else ""]
        rows.append(line)
    return table(head, rows)


def spent(found: Found) -> tuple[str, ...]:
    """What runs spend; where nothing is generated, steps take the place of responses and tokens."""
    generated = any(run[-1].responses for runs in found.values() for run in runs.values())
    return COSTS if generated else ("step", "seconds")


def cost_table(study: Study, found: Found) -> str:
    """What it took to the target, and how many responses over those of the other ways.

    A ratio needs all runs of both ways to have reached it: the others would be the dearest.
    """
    controls = any(variant.control for variant in study.variants.values())
    unit, *others = spent(found)
    head = ["way", "steps" if unit == "step" else unit, f"over those of {study.baseline}"]
    head += ["over those of its control"] if controls else []
    rows = []
    for cell in (cell for cell in study.cells if cell in found):
        variant, runs = cell[0], found[cell]
        line = [name_of(study, cell), cost_text(runs.values(), study, unit)]
        control = study.variants[variant].control
        line.append(
            "" if variant == study.baseline else over(study, found, cell, study.baseline, unit)
        )
        if controls:
            line.append(f"{control}: {over(study, found, cell, control, unit)}" if control else "")
        rows.append([*line, *(cost_text(runs.values(), study, each) for each in others)])
    title = f"**To a score of {study.metric.target:g}**: medians over seeds, and ratios with their"
    return f"{title} intervals.\n\n{table([*head, *others], rows)}"


def over(study: Study, found: Found, cell: Cell, other: str, unit: str) -> str:
    """What a way took to the target over what another at the same place did."""
    both = [found.get((other, cell[1]), {}), found[cell]]
    saved = [savings(runs, study.metric, unit) for runs in both]
    if any(len(s) < len(runs) for s, runs in zip(saved, both, strict=True)):
        return "not all reached it"
    ratio = paired(*saved)
    return "not yet run" if ratio is None else ratio_words(ratio)


def sweep_table(study: Study, rows: Sequence[Row]) -> str:
    """The learning rates that were tried."""
    if study.tuning is None:
        return ""
    found, rates = sweeps(study, rows), sorted(study.tuning.learning_rates)
    if not found:
        return ""
    lines = []
    for cell in dict.fromkeys(study.source_of_rate(*each) for each in study.cells):
        if cell not in found:
            continue
        each = found[cell]
        cells = [f"{each.medians[r]:.3f}" if r in each.medians else "" for r in rates]
        end = ", at an end" if each.at_an_end else ""
        said = "sweep not complete" if each.chosen is None else f"{each.chosen:g}{end}"
        lines.append([name_of(study, cell), *cells, said])
    others = [
        f"{name} takes that of {variant.tuned_as}."
        for name, variant in study.variants.items()
        if variant.tuned_as
    ]
    count, fixed = len(study.tuning.seeds), study.axis.tuned_at if study.axis else None
    everywhere = "" if fixed is None else "; taken at the other values too"
    title = f"**Learning rates**: median over {count} tuning seed{'s' * (count > 1)}{everywhere}."
    head = ["way", *(f"{rate:g}" for rate in rates), "taken"]
    return " ".join([title, *others]) + f"\n\n{table(head, lines)}"


def behavior_table(study: Study, found: Found) -> str:
    """What happened to the policy: medians over seeds."""
    lines = []
    for cell in (cell for cell in study.cells if cell in found):
        runs = list(found[cell].values())
        clips = [mean_of(run, "clip_fraction") for run in runs]
        ends = [[run[-1].entropy or 0.0 for run in runs], [run[-1].length or 0.0 for run in runs]]
        before = median(run[0].length or 0.0 for run in runs)
        base, end = median(r[0].score for r in runs), median(score(r, study.metric) for r in runs)
        shares = [run[-1].generation_seconds / (run[-1].seconds or 1.0) for run in runs]
        lines.append(
            [
                name_of(study, cell),
                f"{base:.3f} to {end:.3f}" + ", collapsed" * (end < base),
                f"{median(clips):.1%}",
                f"{median(ends[0]):.3f}",
                f"{before:.1f} to {median(ends[1]):.1f}",
                f"{median(shares):.0%}",
            ]
        )
    head = ["way", study.metric.key, "tokens clipped", "entropy at the end", "response length"]
    head.append("time generating")
    return (
        "**On the way**: medians over seeds. *Collapsed* means that the score is below that before "
        f"training.\n\n{table(head, lines)}"
    )


def mean_of(run: Curve, key: str) -> float:
    """The mean of a value over the evaluations that have it; 0 without any."""
    values = [value for line in run if (value := getattr(line, key)) is not None]
    return fmean(values) if values else 0.0


def generation_table(study: Study, found: Found) -> str:
    """Scores at equal compute, as generation grows dearer; each pair where its runs end."""
    pairs = [
        (name, at, other)
        for name, at in study.cells
        for other in dict.fromkeys([study.baseline, study.variants[name].control])
        if other not in (None, name)
    ]
    lines = []
    for ratio, (name, at, other) in product(study.generation_costs, pairs):
        both = at_equal_compute(study, found, ratio, (name, at), (other, at))
        if both is None:
            continue
        middles = [spread([*each.values()]) for each in (both.ours, both.theirs)]
        texts = [f"{m.middle:.3f} ({m.low:.3f} to {m.high:.3f})" for m in middles]
        difference = difference_text(paired(both.theirs, both.ours))
        place = [f"{ratio:g}", f"{both.seconds:.0f}", name_of(study, (name, at))]
        lines.append([*place, texts[0], other, texts[1], difference])
    if not lines:
        return ""
    head = ["ratio", "seconds", "way", "score", "compared with", "its score", "difference"]
    return (
        "**At equal compute**, computed: at ratio r generating a token takes r times as long as "
        f"everything else that {study.baseline} does takes per token it generates. The other "
        "seconds are those measured in each run, the tokens those it generated; evaluations cost "
        "nothing. Two ways are compared where the shortest of their runs ends; a run that stopped "
        f"because its numbers were not finite is none of these.\n\n{table(head, lines)}"
    )
