"""What the runs of a study say: scores, sweeps, costs and differences, with their intervals.

A score is that of a run when it has spent its budget. Differences are between runs of the same
seeds, with the 95% paired t interval. The bootstrap over seeds of `rlkit report` is too narrow for
a study: of five differences with one sign it always leaves 0 out, which chance gives in 1 of 16
cases.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from study_file import Cell, Metric, Study
from study_results import Row

from rlkit.evaluation.statistics import Estimate
from rlkit.pages.figures import Difference

Curve = Sequence[Row]
COSTS = ("responses", "tokens", "seconds")
T975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""What a t-distributed value exceeds in 1 of 40 cases, with 1, 2, ..., 30 degrees of freedom."""


def curves(rows: Iterable[Row], phase: str) -> dict[Cell, dict[tuple[float | None, int], Curve]]:
    """The runs of a phase: those of each cell by learning rate and seed."""
    found: dict[Cell, dict[tuple[float | None, int], Curve]] = {}
    wanted = sorted(
        (row for row in rows if row.phase == phase),
        key=lambda r: (r.variant, r.at or 0.0, r.learning_rate or 0.0, r.seed, r.step),
    )
    key = lambda r: (r.variant, r.at, r.learning_rate, r.seed)  # noqa: E731
    for (variant, at, rate, seed), run in itertools.groupby(wanted, key):
        found.setdefault((variant, at), {})[rate, seed] = list(run)
    return found


def reported(rows: Iterable[Row]) -> dict[Cell, dict[int, Curve]]:
    """The runs that count, by cell and seed."""
    found = curves(rows, "reporting")
    return {cell: {seed: run for (_, seed), run in runs.items()} for cell, runs in found.items()}


def along(points: Sequence[tuple[float, float]], x: float) -> float:
    """The value at x on the line through the points; that of the nearest end outside of them."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x <= x0:
            return y0
        if x < x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def score(run: Curve, metric: Metric) -> float:
    """The score of a run when its budget is spent; its last one if it ended before that."""
    return along(values_of(run, metric, "score"), metric.amount)


def values_of(run: Curve, metric: Metric, of: str) -> list[tuple[float, float]]:
    """(spent, value) at the evaluations of a run that have the value."""
    return [
        (getattr(row, metric.unit), value) for row in run if (value := getattr(row, of)) is not None
    ]


def is_short(run: Curve, metric: Metric) -> bool:
    """Whether a run ended before its budget was spent."""
    return bool(getattr(run[-1], metric.unit) < metric.amount)


def scores(runs: Mapping[int, Curve], metric: Metric, of: str = "score") -> dict[str, float]:
    """By seed, of the runs that have the value: their score, or another column of their rows."""
    found = {str(seed): values_of(run, metric, of) for seed, run in runs.items()}
    return {seed: along(each, metric.amount) for seed, each in found.items() if each}


def cost(run: Curve, metric: Metric, unit: str) -> float:
    """What a run had spent when its score first reached the target; infinite if it never did.

    Between two evaluations, score and cost are taken to lie on a line.
    """
    points = [(row.score, float(getattr(row, unit))) for row in run]
    if points[0][0] >= metric.target:
        return points[0][1]
    for (low, before), (high, after) in itertools.pairwise(points):
        if high >= metric.target:
            return before + (after - before) * (metric.target - low) / (high - low)
    return math.inf


def savings(runs: Mapping[int, Curve], metric: Metric, unit: str) -> dict[str, float]:
    """-log(cost) by seed, of the runs that have reached the target.

    A difference d of two of them means exp(-d) times the cost, and above 0 less of it.
    """
    costs = {str(seed): cost(run, metric, unit) for seed, run in runs.items()}
    return {seed: -math.log(each) for seed, each in costs.items() if 0 < each < math.inf}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Values of several seeds."""

    low: float
    """The lower quartile."""
    middle: float
    high: float
    """The upper quartile."""
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, interpolated between the values (numpy's and Excel's default)."""
    if len(values) == 1:
        return Spread(low=values[0], middle=values[0], high=values[0], n=1)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low=low, middle=middle, high=high, n=len(values))


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The learning rates that were tried for a variant."""

    medians: Mapping[float, float]
    """Learning rate -> median score over the tuning seeds."""
    chosen: float | None
    """The best; of equal ones the smallest. None while runs are missing."""

    @property
    def at_an_end(self) -> bool:
        """Whether a better value may lie outside of those that were tried."""
        return self.chosen in (min(self.medians), max(self.medians))


def sweeps(study: Study, rows: Iterable[Row]) -> dict[Cell, Sweep]:
    """Of everything that has tuning runs."""
    if study.tuning is None:
        return {}
    wanted = {*itertools.product(study.tuning.learning_rates, study.tuning.seeds)}
    out = {}
    for cell, runs in curves(rows, "tuning").items():
        by_rate: dict[float, list[float]] = {}
        for (rate, _), run in sorted(runs.items()):
            by_rate.setdefault(rate or 0.0, []).append(score(run, study.metric))
        medians = {rate: statistics.median(values) for rate, values in by_rate.items()}
        best = max(medians, key=lambda rate: (medians[rate], -rate))
        out[cell] = Sweep(medians=medians, chosen=best if wanted <= {*runs} else None)
    return out


def chosen_rates(study: Study, rows: Iterable[Row]) -> dict[Cell, float]:
    """The learning rate of everything whose sweep is complete."""
    found = sweeps(study, rows)
    return {cell: each.chosen for cell, each in found.items() if each.chosen is not None}


def compared(
    found: Mapping[Cell, Mapping[int, Curve]], ours: Cell, theirs: Cell, metric: Metric
) -> Difference | None:
    """Our score less theirs, over the seeds that both have; None without such a seed."""
    pair = [scores(found.get(cell, {}), metric) for cell in (theirs, ours)]
    return paired(*pair)


def paired(theirs: Mapping[str, float], ours: Mapping[str, float]) -> Difference | None:
    """Ours less theirs, over the seeds that both have; None without such a seed.

    The mean d of the n differences, and d - t s/sqrt(n) to d + t s/sqrt(n), where s is their
    standard deviation and t is T975 with n - 1 degrees of freedom (that of 30 for more).
    """
    values = [ours[seed] - theirs[seed] for seed in theirs if seed in ours]
    if not values:
        return None
    n, value = len(values), statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(n) if n > 1 else 0.0
    half = T975[min(n - 1, len(T975)) - 1] * error if n > 1 else 0.0
    found = Estimate(value=value, error=error, low=value - half, high=value + half, n=n)
    return Difference(estimate=found, paired=True)


def cost_of_a_token(runs: Iterable[Curve]) -> float:
    """Seconds of everything but generation per generated token, over whole runs; 0 without one."""
    last = [run[-1] for run in runs]
    work = sum(row.seconds - row.generation_seconds for row in last)
    return work / (sum(row.tokens for row in last) or 1.0)


def clock(run: Curve, per_token: float) -> list[tuple[float, float]]:
    """(computed seconds, score) of a run if a generated token costs `per_token` seconds."""
    return [
        (row.seconds - row.generation_seconds + row.tokens * per_token, row.score) for row in run
    ]


@dataclass(frozen=True, kw_only=True)
class AtEqualCompute:
    """Two variants at equal compute."""

    seconds: float
    ours: Mapping[str, float]
    """Scores by seed."""
    theirs: Mapping[str, float]


def at_equal_compute(
    study: Study, found: Mapping[Cell, Mapping[int, Curve]], ratio: float, ours: Cell, theirs: Cell
) -> AtEqualCompute | None:
    """Two variants, where a token costs `ratio` times the baseline's other seconds per token.

    Compared at the most compute that all their runs of the same seeds have spent. A run that
    stopped because its numbers were not finite shortens nothing: its last score holds on. None
    without the baseline or such seeds.
    """
    base = found.get((study.baseline, ours[1]), {})
    seeds = [seed for seed in found.get(ours, {}) if seed in found.get(theirs, {})]
    if not base or not seeds:
        return None
    per_token = ratio * cost_of_a_token(base.values())
    runs = [{seed: found[cell][seed] for seed in seeds} for cell in (ours, theirs)]
    clocks = [{seed: clock(run, per_token) for seed, run in each.items()} for each in runs]
    ends = [
        (bool(run[-1].stopped), clocks[place][seed][-1][0])
        for place, each in enumerate(runs)
        for seed, run in each.items()
    ]
    whole = [end for stopped, end in ends if not stopped]
    spent = min(whole) if whole else max(end for _, end in ends)
    scored = [{str(seed): along(points, spent) for seed, points in c.items()} for c in clocks]
    return AtEqualCompute(seconds=spent, ours=scored[0], theirs=scored[1])


def missing(study: Study, found: Mapping[Cell, Mapping[int, Curve]]) -> dict[Cell, int]:
    """How many of the runs that count each cell lacks, if it lacks any."""
    seeds = {*study.reporting.seeds}
    lacks = {cell: len(seeds - {*found.get(cell, {})}) for cell in study.cells}
    return {cell: count for cell, count in lacks.items() if count}
