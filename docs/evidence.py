"""Write docs/evidence.md from benchmarks/results/studies/*.parquet: `python docs/evidence.py`.

Each study of benchmarks/studies/ has its section, run or not. The sentences about results are made
from the numbers by the same rule for gains and for losses.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
BENCHMARKS = DOCS.parent / "benchmarks"
sys.path += [str(place) for place in (DOCS, BENCHMARKS) if str(place) not in sys.path]

from bench import status_of  # noqa: E402
from evidence_tables import (  # noqa: E402
    behavior_table,
    bullets,
    cost_table,
    estimate_text,
    generation_table,
    name_of,
    ratio_text,
    score_table,
    sweep_table,
)
from performance import SECTIONS, section  # noqa: E402
from study_figures import is_short, missing, reported  # noqa: E402
from study_file import STUDIES, Hypothesis, Study, read_study  # noqa: E402
from study_results import (  # noqa: E402
    Row,
    added_seeds,
    check_unchanged,
    read_results,
)
from study_verdict import RULE, Found, Verdict, verdicts  # noqa: E402

RESULTS = BENCHMARKS / "results"
PAGE = DOCS / "evidence.md"
LEAD = f"""# Evidence

Written by `python docs/evidence.py` from the Parquet files that `benchmarks/study.py` leaves.
Each study states its question, its hypotheses and its decision rule in `benchmarks/studies/`. The
Parquet file keeps all that makes, chooses and judges the runs as it was before the first one, and
neither `benchmarks/study.py` nor this page goes on if it has changed. What may change is shown.

In the studies:

- A score is that of a run when it has spent the study's budget. Tables give the median over seeds
  and, in brackets, the quartiles.
- A difference is the mean over seeds of one way's score less the other's in the run of the same
  seed, with its 95% paired t interval, which takes the differences for normally distributed. Where
  nothing is said beside it, it holds 0, and that of a ratio 1. Without that assumption five seeds
  decide nothing: that all five differences have one sign is what chance gives in 1 of 16 cases
  (exact sign test, two-sided p = 0.0625). Nothing corrects for the number of comparisons.
- Every way has its own sweep over the same learning rates, on seeds that are not reported. The rate
  with the best median is taken. One at an end of the sweep is marked: a better one may lie outside,
  so nothing that depends on it is shown or contradicted.
- Costs are what a run had spent when it first had the target score, on the line between two
  evaluations: the median over seeds, where runs that never got there come last. Tokens are those
  generated. Seconds are those of training, on one core of a machine that did other work too, so
  they are rough. A ratio of costs is exp of the mean over seeds of the difference of their
  logarithms, and its interval that of this difference. No study could change after its runs, so
  ratios of a study whose hypotheses name no cost were not asked for beforehand.

The rule of every study: {RULE}

The last section is an older measurement without these rules."""


def verdict(study: Study, rows: Sequence[Row], found: Found) -> str:
    """What the runs say of each hypothesis."""
    lines = []
    for claim in study.hypotheses:
        for each in verdicts(study, rows, found, claim):
            where = f" ({each.place})" if each.place else ""
            lines.append(f"{claim.says}{where} **{capital(each.words)}**{counted(claim, each)}")
    return bullets(lines)


def decided(study: Study, rows: Sequence[Row], found: Found) -> str:
    """A study in short: what is shown, what is contradicted, and how much is open."""
    lines, still_open, unknown = [], 0, 0
    for claim in study.hypotheses:
        for each in verdicts(study, rows, found, claim):
            word = each.words.split(":")[0].split(",")[0]
            if word not in ("shown", "contradicted"):
                unknown += word == "not yet run"
                still_open += word == "open"
                continue
            where = f" ({each.place})" if each.place else ""
            lines.append(f"{capital(word)[:-1]}: {claim.says}{where}{counted(claim, each)}")
    every = len(lines) + still_open + unknown
    lines += [f"Open: {still_open} of {every}"] * (still_open > 0)
    lines += [f"Not yet run: {unknown} of {every}"] * (unknown > 0)
    return f"**{study.title}**\n\n{bullets(lines)}"


def counted(claim: Hypothesis, each: Verdict) -> str:
    """The difference behind a verdict."""
    if each.difference is None:
        return ""
    if claim.cost is None:
        unit = " tokens" if claim.of == "length" else ""
        return f" {estimate_text(each.difference)}{unit}"
    return f" {ratio_text(each.difference)} times as many {claim.cost}"


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
    sweep = len({r.run for r in rows if r.phase == "tuning"})
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
    own = study.decision.removeprefix(RULE).strip()
    asked = "\n\n".join(
        [
            f"## {study.title}",
            f"**Question.** {study.question}",
            *([] if found else [f"**Hypotheses.**\n\n{claims}"]),
            *([f"**Besides the rule.** {own}"] if own else []),
            f"**Testbed.** {study.testbed}",
        ]
    )
    how = f"`python benchmarks/study.py benchmarks/studies/{study.name}.yaml`"
    if not rows:
        return f"{asked}\n\n**Not run yet**: {how}.{extra(study)}"
    asked = "\n\n".join(part for part in (asked, changed_since(before, study)) if part)
    parts = [asked, f"**Run.** {facts(study, rows, found)} {how}", sweep_table(study, rows)]
    if found:
        parts[2:2] = [
            f"**Verdict.**\n\n{verdict(study, rows, found)}",
            picture(study),
            score_table(study, found),
            cost_table(study, found),
            generation_table(study, found),
            behavior_table(study, found),
        ]
    parts.append(f"**Not yet run.**\n\n{left_open(study, found)}")
    return "\n\n".join(part for part in parts if part)


def picture(study: Study) -> str:
    """What `study_picture.py` drew, if it did."""
    drawn = (DOCS / f"{study.name}.png").is_file()
    return f"![{study.title}]({study.name}.png)" if drawn else ""


def extra(study: Study) -> str:
    """What the study does not ask."""
    return f"\n\n**Left open.**\n\n{bullets(study.not_run)}" if study.not_run else ""


def studies(folder: Path = STUDIES) -> list[Study]:
    """All of them, in their order."""
    found = [read_study(path) for path in folder.glob("*.yaml")]
    return sorted(found, key=lambda study: (study.order, study.name))


def page(results: Path = RESULTS, folder: Path = STUDIES) -> str:
    """docs/evidence.md."""
    known = [(each, *results_of(each, results)) for each in studies(folder)]
    short = [decided(before, rows, found) for _, before, rows in known if (found := reported(rows))]
    sections = ["## In short", *short] if short else []
    sections += [study_section(*each) for each in known]
    older = [section(each, results) for each in SECTIONS if each.script == "off_policy"]
    return "\n\n".join([LEAD, *sections, *older]) + "\n"


def main() -> int:
    """Write the page."""
    return status_of(write)


def write() -> None:
    """Write docs/evidence.md. Raises UserError for results that do not suit their study."""
    PAGE.write_text(page())


if __name__ == "__main__":
    sys.exit(main())
