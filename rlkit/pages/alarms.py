"""What in a run's metrics deserves a look, in words: every threshold with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlkit.pages.score import all_progress, named
from rlkit.rewards.scoring import FAILURES
from rlkit.runs.checkpoint import list_checkpoints, step_in_name
from rlkit.runs.records import ROLLOUTS, RunRecords

ENOUGH = 0.05
"""The share of a run's steps that have to be beyond a limit: single steps are noise."""
START = 5
"""Steps whose mean is the entropy a run began with."""
SOLVED = 0.9
"""A score from which on there is little left to find, so that sure answers are no harm."""
FAILED = 0.01
"""The share of responses whose reward failed: a timeout now and then is the price of running what a
model wrote, but above one in a hundred the reward or its time limit is to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that deserves a look."""

    title: str
    words: str
    panel: str
    """The plot that shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A metric that most steps of a healthy run keep on one side of a limit."""

    title: str
    measure: str
    """What is measured, for a run where it gives no alarm."""
    panel: str
    key: str
    limit: float
    above: bool
    """Whether the steps above the limit are counted, or those below."""
    what: str
    """What such a step is, after "In 3 of 20 steps"."""
    reason: str
    relative: bool = False
    """Whether the limit is a share of what the metric began with."""
    unless_solved: bool = False
    """Whether there is no alarm if the last held-out score is at least SOLVED."""
    unless: Callable[[RunRecords], bool] = lambda _: False
    """Runs that are meant to be beyond the limit, in which nothing is measured."""

    def alarm(self, run: RunRecords) -> Alarm | None:
        """The alarm, if at least ENOUGH of the steps are beyond the limit."""
        if self.unless(run):
            return None
        points = [p for p in zip(*run.series(self.key), strict=True) if math.isfinite(p[1])]
        values = [value for _, value in points]
        first = values[:START]
        limit = self.limit * sum(first) / len(first) if self.relative and first else self.limit
        beyond = [p for p in points if (p[1] > limit if self.above else p[1] < limit)]
        if not beyond or len(beyond) < ENOUGH * len(points):
            return None
        if self.unless_solved and any(p.after.value >= SOLVED for p in all_progress(run)[:1]):
            return None
        worst = (max if self.above else min)(values)
        end = "highest" if self.above else "lowest"
        words = (
            f"In {len(beyond)} of {len(points)} steps, first in step {beyond[0][0]:.0f}, "
            f"{self.what} ({end}: {worst:.3g}). {self.reason}"
        )
        return Alarm(title=self.title, words=words, panel=self.panel)


def samples_otherwise(run: RunRecords) -> bool:
    """Whether the engine is meant to sample from another policy than the one that is trained."""
    rollout = run.config.get("rollout") or {}
    return rollout.get("name") == "layer_skip" or rollout.get("behavior", "policy") != "policy"


LIMITS = (
    Limit(
        title="Many tokens are clipped",
        measure="clipped tokens",
        panel="clip",
        key="policy/clip_fraction",
        limit=0.3,
        above=True,
        what="more than 30% of the tokens were clipped",
        reason="Clipped tokens give no gradient: fewer passes over a batch, younger responses or a "
        "wider clip range would use more of it.",
    ),
    Limit(
        title="The effective sample size collapsed",
        measure="effective sample size",
        panel="ess",
        key="off_policy/ess",
        limit=0.3,
        above=False,
        what="the effective sample size was below 30% of the batch",
        reason="The variance of the update grows as its inverse, so a few tokens decide it: train "
        "on younger responses, or take smaller steps.",
    ),
    Limit(
        title="The entropy collapsed",
        measure="entropy",
        panel="entropy",
        key="policy/entropy",
        limit=0.1,
        above=False,
        relative=True,
        unless_solved=True,
        what=f"the entropy was below a tenth of what it was in the first {START} steps",
        reason="Responses to a prompt are then nearly the same, groups of equal rewards teach "
        "nothing, and no other answer is tried.",
    ),
    Limit(
        title="The engine disagrees with the trainer",
        measure="engine against trainer",
        panel="engine",
        key="off_policy/engine_kl",
        limit=0.01,
        above=True,
        what="the engine's log-probs were more than 0.01 nats per token from the trainer's",
        reason="Rounding in half precision stays well below; more means other weights, another "
        "template or other sampling settings, and wrong ratios.",
        unless=samples_otherwise,
    ),
    Limit(
        title="Many responses are cut",
        measure="cut responses",
        panel="truncated",
        key="completions/clipped_ratio",
        limit=0.2,
        above=True,
        what="more than 20% of the responses hit the length limit",
        reason="A response without its end is marked for its length and not for its answer: raise "
        "rollout.max_completion_length, or discourage length.",
    ),
)


def failed_rewards(run: RunRecords) -> Alarm | None:
    """Rewards that raised, timed out, were lost or had no score, of more than FAILED responses."""
    counts = {name: run.total(f"reward/{name}") for name in FAILURES}
    responses = run.records[-1][ROLLOUTS]
    if not responses or sum(counts.values()) <= FAILED * responses:
        return None
    told = ", ".join(f"{count:,.0f} {name}" for name, count in counts.items() if count)
    words = (
        f"{told} for {responses:,.0f} responses. Such a response counts as wrong or is lost, "
        "whatever it says: look at the reward's time limit and at what it raises."
    )
    return Alarm(title="Rewards failed", words=words, panel="failures")


def skipped_updates(run: RunRecords) -> Alarm | None:
    """Updates that were not made, since their loss or gradient was not finite. None is normal."""
    skipped = run.total("policy/skipped_steps")
    if skipped <= 0:
        return None
    words = (
        f"{skipped:,.0f} updates had a loss or gradient that is not finite and were not made. "
        "Their responses are in nonfinite/; a lower learning rate or a clamped ratio may help."
    )
    return Alarm(title="Updates were skipped", words=words, panel="skipped")


def not_finite(run: RunRecords) -> Alarm | None:
    """Metrics with a value that is NaN or infinite. None is normal."""
    keys = [key for key in run.keys("(?s:.)+") if not all(map(math.isfinite, run.series(key)[1]))]
    if not keys:
        return None
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    words = f"{', '.join(keys[:3])}{more} had values that are not finite: gaps in their plots."
    return Alarm(title="Some values are not finite", words=words, panel="")


def worse_than_best(run: RunRecords) -> Alarm | None:
    """A last score whose interval lies below that of the best one: more than chance."""
    for found in all_progress(run):
        if found.after.high < found.best.low:
            words = (
                f"{named(found.key)} was {found.best.value:.3f} after step {found.best_step:.0f} "
                f"and ended at {found.after.value:.3f}, and their intervals do not overlap. "
                + checkpoint_of(run, int(found.best_step))
            )
            return Alarm(title="The best score was lost again", words=words, panel="score")
    return None


def checkpoint_of(run: RunRecords, step: int) -> str:
    """Where the weights of a step are, or the nearest that there are."""
    steps = [step_in_name(path) for path in list_checkpoints(run.path)]
    if step in steps:
        return f"checkpoint-{step} has those weights."
    if not steps:
        return "There is no checkpoint of that step."
    nearest = min(steps, key=lambda each: abs(each - step))
    return (
        f"There is no checkpoint of that step, the nearest is checkpoint-{nearest}: with "
        "checkpoint.every at eval.every the best one is kept."
    )


CHECKS: Sequence[Callable[[RunRecords], Alarm | None]] = (
    *(limit.alarm for limit in LIMITS),
    failed_rewards,
    skipped_updates,
    not_finite,
    worse_than_best,
)


def alarms(run: RunRecords) -> list[Alarm]:
    """Everything in a run that deserves a look."""
    return [found for check in CHECKS if (found := check(run)) is not None]


def measured(run: RunRecords) -> list[str]:
    """What was held to a limit: the run logged it."""
    return [limit.measure for limit in LIMITS if run.series(limit.key)[1] and not limit.unless(run)]
