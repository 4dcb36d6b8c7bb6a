"""Several runs compared: scores with intervals, cost to a target, and differences to a baseline."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlkit.errors import UserError, suggest
from rlkit.evaluation.statistics import (
    Estimate,
    mean_interval,
    paired_difference,
    unpaired_difference,
)
from rlkit.pages.groups import RunGroup, grouped
from rlkit.pages.score import MAIN, PASS
from rlkit.pages.scores import (
    AXES,
    SHARE,
    Reached,
    default_target,
    finished_of,
    finite,
    planned_steps,
    problem_interval,
    reached,
    scores_of,
)
from rlkit.runs.records import RunRecords

ENOUGH = 5
"""Seeds below which a difference is not told from chance.

Four pairs of one sign are what chance alone gives in 1 of 8 cases, five in 1 of 16.
"""

HOLDS_0 = "not distinguishable: the interval holds 0"
"""What a difference says whose interval leaves its sign open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A group's score minus the baseline's."""

    estimate: Estimate
    paired: bool
    """Whether it is between runs of the same seeds."""

    @property
    def distinguishable(self) -> bool:
        """Whether it is more than chance between seeds."""
        return self.estimate.n >= ENOUGH and self.estimate.distinguishable

    @property
    def words(self) -> str:
        """What the interval says."""
        if self.estimate.n < ENOUGH:
            seeds = "1 seed" if self.estimate.n == 1 else f"{self.estimate.n} seeds"
            return f"not distinguishable: {seeds}, too few (at least {ENOUGH})"
        if not self.distinguishable:
            return HOLDS_0
        return "better" if self.estimate.value > 0 else "worse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A group of runs in the table."""

    group: RunGroup
    """The runs that count."""
    step: float
    """The evaluation that is compared: the last one that all of them have."""
    steps: float | None
    """The training steps they are meant to take, if known."""
    scores: Mapping[str, float]
    """By seed."""
    score: Estimate
    """The mean over seeds; of a single run, over problems where that is known."""
    over: str
    """What varies in the score's interval: seeds, problems, or nothing that is known."""
    reached: Mapping[str, Reached | None]
    """By axis; None where the axis or the target is not known."""
    difference: Difference | None
    """To the baseline; None for the baseline itself."""

    @property
    def finished(self) -> bool:
        """Whether the runs came to their end."""
        return self.steps is None or self.step >= self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs by group, with the figures of one metric."""

    metric: str
    target: float | None
    """The score that costs are measured to; None if no group gained anything."""
    target_words: str
    """Where it comes from."""
    baseline: str
    rows: Sequence[Row]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of the runs."""

    metric: str | None = None
    """None = eval/pass@1, or the first pass@1 of several tasks."""
    baseline: str | None = None
    """A group's label, a part of it, or one of its run folders; None = the first group."""
    target: float | None = None
    """A score; None = 90% of the best group's gain."""


def compare(runs: Sequence[RunRecords], question: Question | None = None) -> Comparison:
    """Compare runs by one metric. Raises UserError if none of them has it."""
    question = question or Question()
    metric = _metric(runs, question.metric)
    measured = [run for run in runs if finite(run, metric)[0]]
    groups, notes = grouped(measured)
    if without := [str(run.path) for run in runs if run not in measured]:
        notes.append(f"without {metric}, left out: {', '.join(without)}")
    counted = []
    for group in groups:
        used = finished_of(group, metric)
        counted.append(used)
        if left := [run.path for seed, run in group.runs.items() if seed not in used.runs]:
            notes.append(f"{group.label}: unfinished, left out: {', '.join(map(str, left))}")
    scored = [scores_of(group, metric) for group in counted]
    base = _baseline(groups, question.baseline)
    target, words = question.target, "as asked"
    if target is None:
        target = default_target(counted, metric, [list(v.values()) for _, v in scored])
        words = f"{SHARE:.0%} of the best group's gain"
    rows = [
        _row(group, metric, target, found, None if place == base else scored[base][1])
        for place, (group, found) in enumerate(zip(counted, scored, strict=True))
    ]
    return Comparison(
        metric=metric,
        target=target,
        target_words=words,
        baseline=groups[base].label,
        rows=rows,
        notes=notes,
    )


def _row(
    group: RunGroup,
    metric: str,
    target: float | None,
    scored: tuple[float, Mapping[str, float]],
    baseline: Mapping[str, float] | None,
) -> Row:
    step, scores = scored
    values = list(scores.values())
    known = problem_interval(next(iter(group.runs.values())), metric, step)
    alone = len(values) == 1
    return Row(
        group=group,
        step=step,
        steps=planned_steps(next(iter(group.runs.values()))),
        scores=scores,
        score=known if alone and known is not None else mean_interval(values),
        over="" if alone and known is None else "problems" if alone else "seeds",
        reached={axis: reached(group, metric, axis, target) for axis in AXES},
        difference=None if baseline is None else difference(baseline, scores),
    )


def difference(baseline: Mapping[str, float], other: Mapping[str, float]) -> Difference:
    """The difference of two groups' scores by seed.

    Paired if every seed of the smaller group is in the other one too.
    """
    both = [seed for seed in baseline if seed in other]
    if len(both) == min(len(baseline), len(other)):
        pairs = [baseline[seed] for seed in both], [other[seed] for seed in both]
        return Difference(estimate=paired_difference(*pairs), paired=True)
    apart = unpaired_difference(list(baseline.values()), list(other.values()))
    return Difference(estimate=apart, paired=False)


def _metric(runs: Sequence[RunRecords], wanted: str | None) -> str:
    """The metric to compare by: the wanted one, or the first score of an evaluation."""
    known = list(dict.fromkeys(key for run in runs for key in run.keys(".+/.+")))
    if wanted is not None and wanted not in known:
        raise UserError(f"no run has logged {wanted}.{suggest(wanted, known)}")
    scores = [key for key in known if re.fullmatch(PASS, key)]
    if wanted is None and not scores:
        raise UserError(
            "none of these runs holds an evaluation (eval/pass@1): nothing to compare; "
            "--metric reward/mean compares by the reward in training"
        )
    return wanted or (MAIN if MAIN in scores else scores[0])


def _baseline(groups: Sequence[RunGroup], wanted: str | None) -> int:
    """The place of the group that is meant by its label, a part of it, or one of its folders."""
    if wanted is None:
        return 0
    labels = [group.label for group in groups]
    meant = [place for place, label in enumerate(labels) if label == wanted] or [
        place
        for place, group in enumerate(groups)
        if wanted in group.label or _holds(group, Path(wanted))
    ]
    if len(meant) != 1:
        what = "names several groups" if meant else "is no group of these"
        raise UserError(f"--baseline {wanted} {what}; the groups are: {'; '.join(labels)}")
    return meant[0]


def _holds(group: RunGroup, folder: Path) -> bool:
    return any(run.path.resolve() == folder.resolve() for run in group.runs.values())
