"""What the runs of a study say of its hypotheses, by one rule for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from study_figures import (
    Curve,
    at_equal_compute,
    cost,
    is_short,
    paired,
    savings,
    scores,
    sweeps,
)
from study_file import Cell, Hypothesis, Study
from study_results import Row

from rlkit.pages.figures import ENOUGH, Difference

RULE = (
    "A hypothesis is shown, wherever it is said, if the 95% paired t interval of the difference "
    "over the reporting seeds lies above 0, contradicted if it lies below 0, and open otherwise. "
    "It is open too while a run is missing, if the best learning rate of one of the two ways is at "
    "an end of its sweep, if a run ended before the budget was spent, or if a run of the better "
    "way stopped because its numbers were not finite."
)
"""What every study's decision says; `judged` computes it."""
Found = Mapping[Cell, Mapping[int, Curve]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of a hypothesis at one of the places where it is said."""

    place: str
    """In words; empty if it is said once."""
    difference: Difference | None
    """That of the better variant less the other one; None without two runs of one seed."""
    words: str


def verdicts(
    study: Study, rows: Sequence[Row], found: Found, claim: Hypothesis
) -> Iterator[Verdict]:
    """Those of a hypothesis, value by value of the axis and ratio by ratio."""
    for at in claim.at or [
        value for value in study.values if value != claim.since or value is None
    ]:
        where = f"{study.axis.name} {at:g}" if study.axis and at is not None else ""
        for ratio in claim.ratios or (None,):
            at_ratio = "" if ratio is None else f"ratio {ratio:g}"
            each = difference_at(study, found, claim, at, ratio)
            yield Verdict(
                place=", ".join(part for part in (where, at_ratio) if part),
                difference=each,
                words=judged(study, rows, found, claim, at, each),
            )


def difference_at(
    study: Study, found: Found, claim: Hypothesis, at: float | None, ratio: float | None
) -> Difference | None:
    """What the better variant has more than the other.

    Its score, length or entropy, its gain since another value of the axis, or -log of its cost.
    """
    if ratio is not None:
        both = at_equal_compute(study, found, ratio, (claim.better, at), (claim.than, at))
        return None if both is None else paired(both.theirs, both.ours)
    return paired(*(gains(study, found, (name, at), claim) for name in (claim.than, claim.better)))


def gains(study: Study, found: Found, cell: Cell, claim: Hypothesis) -> dict[str, float]:
    """What the claim compares, by seed: -log of a cost, or values, less those at `since`."""
    if claim.cost is not None:
        return savings(found.get(cell, {}), study.metric, claim.cost)
    now = scores(found.get(cell, {}), study.metric, claim.of)
    if claim.since is None:
        return now
    then = scores(found.get((cell[0], claim.since), {}), study.metric, claim.of)
    return {seed: now[seed] - then[seed] for seed in now if seed in then}


def judged(
    study: Study,
    rows: Sequence[Row],
    found: Found,
    claim: Hypothesis,
    at: float | None,
    each: Difference | None,
) -> str:
    """The rule."""
    places = [at] if claim.since is None else [at, claim.since]
    better, other = ([(name, p) for p in places] for name in (claim.better, claim.than))
    if all(found.get(cell) for cell in [*better, *other]) and (
        count := without_target(study, found, claim, [*better, *other])
    ):
        return f"open: {runs(count)} never had {study.metric.target:g}"
    if each is None:
        return "not yet run"
    if reason := why_open(study, rows, found, claim, each, [*better, *other]):
        return f"open: {reason}"
    gains = each.estimate.value > 0
    winner, loser = (better, other) if gains else (other, better)
    if count := stopped(study, found, winner):
        return f"open: {runs(count)} of {winner[0][0]} stopped at numbers that are not finite"
    count = stopped(study, found, loser)
    note = f", by the last score of {runs(count)} of {loser[0][0]} that stopped"
    lost = "worse" if claim.of == "score" else "the other way round"
    return ("shown" if gains else f"contradicted: it is {lost}") + note * (count > 0)


def without_target(study: Study, found: Found, claim: Hypothesis, cells: Sequence[Cell]) -> int:
    """Runs that never reached the target, if the claim is on what it took."""
    every = [run for cell in cells for run in found.get(cell, {}).values() if claim.cost]
    return sum(cost(run, study.metric, str(claim.cost)) == math.inf for run in every)


def why_open(
    study: Study,
    rows: Sequence[Row],
    found: Found,
    claim: Hypothesis,
    each: Difference,
    cells: Sequence[Cell],
) -> str:
    """Why the difference decides nothing, whichever way is better; empty if it may."""
    planned, n = len(study.reporting.seeds), each.estimate.n
    if n < planned:
        return f"{n} of {planned} seeds"
    if n < ENOUGH:
        return f"{n} seeds, too few (at least {ENOUGH})"
    swept = sweeps(study, rows)
    tuned = {cell[0]: study.source_of_rate(*cell) for cell in cells}
    ends = [name for name, cell in tuned.items() if cell in swept and swept[cell].at_an_end]
    if ends:
        return f"the best rate is at an end of the sweep ({', '.join(ends)})"
    early = [run for cell in cells for run in found.get(cell, {}).values() if not run[-1].stopped]
    if count := sum(is_short(run, study.metric) for run in early):
        return f"{runs(count)} ended before the budget was spent"
    return "" if each.distinguishable else f"the interval holds {1 if claim.cost else 0}"


def stopped(study: Study, found: Found, cells: Sequence[Cell]) -> int:
    """Runs whose numbers were not finite before the budget was spent."""
    every = [run for cell in cells for run in found.get(cell, {}).values()]
    return sum(bool(run[-1].stopped) and is_short(run, study.metric) for run in every)


def runs(count: int) -> str:
    """A number of runs."""
    return f"{count} run{'s' * (count > 1)}"
