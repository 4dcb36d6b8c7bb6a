"""Held-out scores before and after a run, with their intervals, and what it took to get there."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlkit.runs.records import ROLLOUTS, SECONDS, STEP, Record, RunRecords

MAIN = "eval/pass@1"
PASS = r"eval/(?!source/)(.+/)?pass@1"
"""The score of an evaluation; those of the sources within one are parts of it."""
Z = 1.959963984540054
"""The normal quantile of a two-sided 95% interval."""
SHARES = (0.5, 0.8, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A score with its 95% interval over problems."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The first evaluation with a share of the run's gain."""

    share: float
    score: float
    """What had to be reached: before + share * (after - before)."""
    step: float
    responses: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A score over a run."""

    key: str
    before: Score
    after: Score
    best: Score
    best_step: float
    evaluations: int
    reached: Sequence[Reached]
    """Empty if the score did not rise."""

    @property
    def is_distinguishable(self) -> bool:
        """Whether the intervals before and after do not overlap."""
        return self.after.low > self.before.high or self.after.high < self.before.low


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95% score interval of a share of n problems (Wilson 1927).

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    middle = share + Z * Z / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + Z * Z / n)), min(1.0, (middle + half) / (1 + Z * Z / n))


def interval(record: Record, key: str, problems: int) -> tuple[float, float]:
    """The 95% interval of a score in a record.

    The one that was logged (<key>_low and <key>_high, or value -+ 1.96 <key>_error); else the
    binomial one, as if each of the problems were answered once.
    """
    value = record[key]
    if f"{key}_low" in record and f"{key}_high" in record:
        return record[f"{key}_low"], record[f"{key}_high"]
    if f"{key}_error" in record:
        half = Z * record[f"{key}_error"]
        return max(0.0, value - half), min(1.0, value + half)
    if not 0 <= value <= 1:
        return value, value
    return wilson(value, problems)


def problems_of(run: RunRecords) -> int:
    """How many problems an evaluation asked for; at least 1."""
    section = run.config.get("eval")
    found = section.get("problems") if isinstance(section, dict) else None
    return found if isinstance(found, int) and found > 0 else 1


def score_keys(run: RunRecords) -> list[str]:
    """The scores of a run's evaluations, that of its own task first."""
    return sorted(run.keys(PASS), key=lambda key: key != MAIN)


def progress(run: RunRecords, key: str) -> Progress:
    """How a score moved. Values that are not finite are passed over."""
    records = [r for r in run.records if key in r and math.isfinite(r[key])]
    problems = problems_of(run)

    def score(record: Record) -> Score:
        low, high = interval(record, key, problems)
        return Score(value=record[key], low=low, high=high)

    best = max(records, key=lambda record: record[key])
    return Progress(
        key=key,
        before=score(records[0]),
        after=score(records[-1]),
        best=score(best),
        best_step=best[STEP],
        evaluations=len(records),
        reached=_reached(records, key),
    )


def all_progress(run: RunRecords) -> list[Progress]:
    """Every score that was measured."""
    finite = [
        key
        for key in score_keys(run)
        if any(math.isfinite(r[key]) for r in run.records if key in r)
    ]
    return [progress(run, key) for key in finite]


def intervals(
    run: RunRecords, rows: Sequence[Record], key: str
) -> tuple[list[float], list[float]] | None:
    """The ends of a score's intervals in the rows that hold it, for a plot.

    None if they are unknown: nothing says how many of the problems are of one source.
    """
    if key.startswith("eval/source/"):
        return None
    found = [interval(row, key, problems_of(run)) for row in rows if key in row]
    return [low for low, _ in found], [high for _, high in found]


def _reached(records: Sequence[Record], key: str) -> list[Reached]:
    before, after = records[0][key], records[-1][key]
    out: list[Reached] = []
    for share in SHARES if after > before else ():
        wanted = before + share * (after - before)
        first = next((record for record in records if record[key] >= wanted), records[-1])
        out.append(
            Reached(
                share=share,
                score=wanted,
                step=first[STEP],
                responses=first[ROLLOUTS],
                seconds=first[SECONDS],
            )
        )
    return out


def named(key: str) -> str:
    """The name of a score for the reader: `math500 pass@1` for eval/math500/pass@1."""
    return re.sub("/", " ", key.removeprefix("eval/"))
