"""The figures of one group of runs: its scores, their interval, and what it took to a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean, median

from rlkit.evaluation.statistics import Estimate
from rlkit.pages.curves import first_reach
from rlkit.pages.groups import RunGroup, flattened
from rlkit.pages.score import Z, interval, problems_of
from rlkit.runs.records import ROLLOUTS, SECONDS, STEP, RunRecords

AXES = (ROLLOUTS, STEP, SECONDS)
SHARE = 0.9
"""The target is this share of the best group's gain."""
ROUND = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What it took the runs of a group to reach the target, over one axis."""

    median: float | None
    """Over all runs, those that never reached it last; None if the middle one did not."""
    runs: int
    """How many reached it."""


def planned_steps(run: RunRecords) -> float | None:
    """How many training steps a run is meant to take, if its settings say so."""
    steps = flattened(run.config).get("train.steps")
    return float(steps) if isinstance(steps, int | float) else None


def finished_of(group: RunGroup, metric: str) -> RunGroup:
    """The runs of a group that came to their end; all of them if none did."""
    done = {seed: run for seed, run in group.runs.items() if _finished(run, metric)}
    return RunGroup(label=group.label, runs=done or group.runs)


def scores_of(group: RunGroup, metric: str) -> tuple[float, dict[str, float]]:
    """The last step at which every run has the metric, and its values there by seed.

    Without a common step it is each run's own last value, at the smallest of their steps.
    """
    lines = {seed: run.series(metric) for seed, run in group.runs.items()}
    common = set.intersection(*(set(x) for x, _ in lines.values()))
    if not common:
        last = {seed: y[-1] for seed, (_, y) in lines.items()}
        return min(x[-1] for x, _ in lines.values()), last
    step = max(common)
    return step, {seed: dict(zip(x, y, strict=True))[step] for seed, (x, y) in lines.items()}


def problem_interval(run: RunRecords, metric: str, step: float) -> Estimate | None:
    """The interval of one run's score over its problems; None for what is no score of them."""
    if not metric.startswith("eval/") or metric.startswith("eval/source/"):
        return None
    n = problems_of(run)
    record = next(r for r in run.records if r[STEP] == step and metric in r)
    low, high = interval(record, metric, n)
    return Estimate(value=record[metric], error=(high - low) / (2 * Z), low=low, high=high, n=n)


def default_target(
    groups: Sequence[RunGroup], metric: str, scores: Sequence[Sequence[float]]
) -> float | None:
    """SHARE of the way from the best group's first value to its score; None if none gained."""
    start, best = max(
        (
            (_start(group, metric), fmean(found))
            for group, found in zip(groups, scores, strict=True)
        ),
        key=lambda both: both[1],
    )
    return start + SHARE * (best - start) if best > start else None


def reached(group: RunGroup, metric: str, axis: str, target: float | None) -> Reached | None:
    """What it took to the first value of at least `target`; None if axis or target is unknown."""
    lines = [run.series(metric, axis) for run in group.runs.values()]
    if target is None or not any(x[-1] > 0 for x, _ in lines if x):
        return None
    found = [first_reach(line, target - ROUND) for line in lines]
    middle = median(found)
    return Reached(median=middle if isfinite(middle) else None, runs=sum(map(isfinite, found)))


def _finished(run: RunRecords, metric: str) -> bool:
    steps = planned_steps(run)
    return steps is None or run.series(metric)[0][-1] >= steps


def _start(group: RunGroup, metric: str) -> float:
    return fmean(run.series(metric)[1][0] for run in group.runs.values())
