"""Write docs/evidence.md from benchmarks/results/studies/*.parquet: `python docs/evidence.py`.

Each study of benchmarks/studies/ has its section, run or not. The sentences about results are made
from the numbers by the same rule for gains and for losses.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

DOCS = Path(__file__).resolve().parent
BENCHMARKS = DOCS.parent / "benchmarks"
sys.path += [str(place) for place in (DOCS, BENCHMARKS) if str(place) not in sys.path]

from performance import SECTIONS, row, section  # noqa: E402
from study_figures import (  # noqa: E402
    COSTS,
    Curve,
    at_equal_compute,
    compared,
    cost,
    is_short,
    missing,
    paired,
    reported,
    score,
    scores,
    spread,
    sweeps,
)
from study_file import STUDIES, Cell, Study, read_study  # noqa: E402
from study_results import (  # noqa: E402
    Row,
    added_seeds,
    check_unchanged,
    read_results,
)
from study_verdict import Found, verdicts  # noqa: E402

from rlkit.errors import UserError  # noqa: E402
from rlkit.pages.comparison import interval_text  # noqa: E402
from rlkit.pages.figures import Difference  # noqa: E402

RESULTS = BENCHMARKS / "results"
PAGE = DOCS / "evidence.md"
LEAD = """# Evidence

Written by `python docs/evidence.py` from `benchmarks/results/studies/`. Each study states its
question, its hypotheses and its decision rule in `benchmarks/studies/`. The Parquet file keeps
all that makes, chooses and judges the runs as it was before the first one, and neither
`benchmarks/study.py` nor this page goes on if it has changed. What may change is shown.

- A score is that of a run when it has spent the study's budget. Tables give the median over seeds
  and, in brackets, the quartiles.
- A difference is the mean over seeds of one way's score less the other's in the run of the same
  seed, with its 95% paired t interval, which takes the differences for normally distributed. *Not
  distinguishable* means that the interval holds 0, or that there are fewer than five seeds. Without
  that assumption five seeds decide nothing: that all five differences have one sign is what chance
  gives in 1 of 16 cases (exact sign test, two-sided p = 0.0625). Nothing corrects for the number of
  comparisons.
- Every way has its own sweep over the same learning rates, on seeds that are not reported. The rate
  with the best median is taken. One at an end of the sweep is marked: a better one may lie outside,
  so nothing that depends on it is shown or contradicted.
- Costs are those of the first evaluation with the target score: the median over seeds, where runs
  that never got there come last. Tokens are those generated. Seconds are those of training, on one
  core of a machine that did other work too, so they are rough."""


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
    """A difference, its interval and what it says."""
    if found is None:
        return "not yet run"
    return f"{estimate_text(found)} {found.words}"


def estimate_text(found: Difference) -> str:
    """A difference and its interval."""
    interval = f" {interval_text(found.estimate, '+')}" if found.estimate.n > 1 else ""
    return f"{found.estimate.value:+.3f}{interval}"


def cost_text(runs: Iterable[Curve], study: Study, unit: str) -> str:
    """The median cost to the target."""
    values = [cost(run, study.metric, unit) for run in runs]
    got = sum(map(math.isfinite, values))
    middle = median(values)
    if not math.isfinite(middle):
        return f"not reached ({got} of {len(values)} did)"
    return f"{middle:,.0f}" + (f" ({got} of {len(values)})" if got < len(values) else "")


def score_table(study: Study, found: Found) -> str:
    """Scores, differences and costs."""
    target = f"{study.metric.target:g}"
    controls = any(variant.control for variant in study.variants.values())
    head = ["way", "seeds", f"{study.metric.key}", f"less {study.baseline}"]
    head += ["less its control"] if controls else []
    head += [f"{unit} to {target}" for unit in COSTS]
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
        rows.append([*line, *(cost_text(runs.values(), study, unit) for unit in COSTS)])
    return table(head, rows)


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
    lines = []
    for ratio in study.generation_costs:
        for name, at in study.cells:
            others = dict.fromkeys([study.baseline, study.variants[name].control])
            for other in (each for each in others if each not in (None, name)):
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


def verdict(study: Study, rows: Sequence[Row], found: Found) -> str:
    """What the runs say of each hypothesis."""
    lines = []
    for claim in study.hypotheses:
        for each in verdicts(study, rows, found, claim):
            where = f" ({each.place})" if each.place else ""
            counted = f" {estimate_text(each.difference)}" if each.difference else ""
            lines.append(f"{claim.says}{where} **{capital(each.words)}**{counted}")
    return bullets(lines)


def capital(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def left_open(study: Study, found: Found) -> str:
    """Runs that are missing, and what the study does not ask."""
    lacks = missing(study, found)
    lines = [
        f"{name_of(study, cell)}: {count} of {len(study.reporting.seeds)} seeds"
        for cell, count in lacks.items()
    ]
    if lacks and len(lacks) == len(study.cells) and not found:
        lines = [f"all {sum(lacks.values())} runs that count"]
    return bullets([*lines, *study.not_run]) or "- nothing of what it planned"


def facts(study: Study, rows: Sequence[Row], found: Found) -> str:
    """How much was run, on what, and what has to be known about it."""
    runs = [run for runs in found.values() for run in runs.values()]
    sweep = len({(r.variant, r.learning_rate, r.seed) for r in rows if r.phase == "tuning"})
    ends: dict[tuple[Any, ...], float] = {}
    for r in rows:
        key = (r.phase, r.variant, r.at, r.learning_rate, r.seed)
        ends[key] = max(ends.get(key, 0.0), r.seconds)
    minutes = sum(ends.values()) / 60
    said = [
        f"{len(runs)} runs that count and {sweep} of the sweep, {minutes:.0f} minutes of training "
        f"in all, one thread each, on {', '.join(sorted({r.processor for r in rows}))}"
    ]
    sources = {r.source for r in rows}
    said += [f"made with {len(sources)} versions of the code"] if len(sources) > 1 else []
    short = sum(is_short(run, study.metric) for run in runs)
    said += [f"{short} ended before the budget was spent; their last score counts"] * (short > 0)
    stopped = sum(bool(run[-1].stopped) for run in runs)
    said += [f"{stopped} stopped because their numbers were not finite"] * (stopped > 0)
    return ". ".join(capital(each).rstrip(".") for each in said) + "."


def results_of(study: Study, results: Path) -> tuple[Study, list[Row]]:
    """The study as it was before its first run, and its rows; itself and none if it was not run.

    Raises UserError if what makes, chooses or judges the runs has changed since.
    """
    path = results / "studies" / f"{study.name}.parquet"
    check_unchanged(study, path)
    return read_results(path) if path.is_file() else (study, [])


def changed_since(before: Study, now: Study) -> str:
    """What a study says otherwise than before its first run, and may."""
    seeds = ", ".join(map(str, added_seeds(before, now)))
    lines = [f"seeds {seeds} were added to those that count; intervals hold them"] if seeds else []
    for key in ("title", "testbed", "not_run"):
        old, new = getattr(before, key), getattr(now, key)
        if old != new:
            was = old if isinstance(old, str) else "; ".join(old) or "empty"
            lines.append(f"`{key}` was: {was}")
    return f"**Changed after the first run.**\n\n{bullets(lines)}" if lines else ""


def study_section(study: Study, before: Study, rows: Sequence[Row]) -> str:
    """A study: what it asks, and what is known."""
    found = reported(rows)
    claims = bullets(f"{each.says}" for each in study.hypotheses)
    asked = (
        f"## {study.title}\n\n**Question.** {study.question}\n\n**Hypotheses.**\n\n{claims}\n\n"
        f"**Decision rule.** {study.decision}\n\n**Testbed.** {study.testbed}"
    )
    how = f"`python benchmarks/study.py benchmarks/studies/{study.name}.yaml`"
    if not rows:
        return f"{asked}\n\n**Not run yet**: {how}.{extra(study)}"
    asked = "\n\n".join(part for part in (asked, changed_since(before, study)) if part)
    parts = [asked, f"**Run.** {facts(study, rows, found)} {how}", sweep_table(study, rows)]
    if found:
        parts[2:2] = [
            f"**Verdict.**\n\n{verdict(study, rows, found)}",
            score_table(study, found),
            generation_table(study, found),
            behavior_table(study, found),
        ]
    parts.append(f"**Not yet run.**\n\n{left_open(study, found)}")
    return "\n\n".join(part for part in parts if part)


def extra(study: Study) -> str:
    """What the study does not ask."""
    return f"\n\n**Left open.**\n\n{bullets(study.not_run)}" if study.not_run else ""


def studies(folder: Path = STUDIES) -> list[Study]:
    """All of them, in their order."""
    found = [read_study(path) for path in folder.glob("*.yaml")]
    return sorted(found, key=lambda study: (study.order, study.name))


def page(results: Path = RESULTS, folder: Path = STUDIES) -> str:
    """docs/evidence.md."""
    sections = [study_section(each, *results_of(each, results)) for each in studies(folder)]
    older = [
        section(e, results) for e in SECTIONS if e.script in {"off_policy", "offline_ablation"}
    ]
    return "\n\n".join([LEAD, *sections, *older]) + "\n"


def main() -> int:
    """Write the page."""
    try:
        PAGE.write_text(page())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
