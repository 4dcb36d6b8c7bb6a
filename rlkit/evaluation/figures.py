"""The figures of a benchmark and of a suite, each with its interval over problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from rlkit.errors import UserError
from rlkit.evaluation.statistics import DRAWS, LEVEL, Estimate, mean_interval
from rlkit.evaluation.votes import Ballot, majority
from rlkit.ops import stream_rng

LENGTH, TRUNCATED, REFLECTION = "length", "truncated", "reflection"
GREEDY = "greedy"
OFTEN = 0.1
"""A share of truncated responses that is warned of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a problem's samples; every list has an entry per sample."""

    right: Sequence[bool]
    lengths: Sequence[int]
    """In tokens."""
    truncated: Sequence[bool]
    """Whether the response was cut off at the most tokens allowed."""
    reflects: Sequence[bool]
    classes: Sequence[int | None] | None = None
    """Which samples gave the same answer, None for no answer; None = the answers cannot be
    compared, and there is no maj@k."""


Figures = dict[str, Estimate]
Values = dict[str, list[float]]
"""Each figure's values, one per problem."""


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimator of the probability that at least one of k samples is right.

    It is 1 - C(n - c, k) / C(n, k) for c right samples among n (arXiv:2107.03374).
    """
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


def usual_ks(samples: int) -> tuple[int, ...]:
    """1, 2, 4, 8, ... up to the number of samples, and that number."""
    powers = (1 << i for i in range(samples.bit_length()))
    return tuple(dict.fromkeys((*(k for k in powers if k <= samples), samples)))


def check_ks(ks: Sequence[int], samples: int) -> None:
    """Raise UserError unless there are enough samples for each k."""
    for k in ks:
        if not 1 <= k <= samples:
            raise UserError(
                f"--k {k} needs at least as many samples, and there are {samples}: --samples {k}"
            )


def values_of(
    sampled: Sequence[Outcome], greedy: Sequence[Outcome], ks: Sequence[int], seed: int = 0
) -> Values:
    """The figures of each problem of a benchmark from its outcomes; either list may be empty.

    pass@1 is the mean mark of all samples (avg@n); pass@k and maj@k for each k above 1; greedy; and
    the samples' mean length, truncated share and self-reflection rate, or the greedy responses' if
    nothing was sampled.
    """
    values: Values = {}
    if sampled:
        for k in sorted({1, *ks}):
            values[f"pass@{k}"] = [pass_at_k(len(o.right), sum(o.right), k) for o in sampled]
        values |= votes(sampled, [k for k in ks if k > 1], seed)
    if greedy:
        values[GREEDY] = [float(o.right[0]) for o in greedy]
    shown = sampled or greedy
    values[LENGTH] = [float(np.mean(o.lengths)) for o in shown]
    values[TRUNCATED] = [float(np.mean(o.truncated)) for o in shown]
    values[REFLECTION] = [float(np.mean(o.reflects)) for o in shown]
    return values


def figures(values: Values, seed: int = 0) -> Figures:
    """The mean of each figure; its interval draws problems, each with all its samples."""
    return {name: mean_interval(each, seed=seed) for name, each in values.items()}


def votes(sampled: Sequence[Outcome], ks: Sequence[int], seed: int) -> dict[str, list[float]]:
    """maj@k of each problem; nothing if the answers cannot be compared."""
    ballots = [Ballot.of(o.classes, o.right) for o in sampled if o.classes is not None]
    if len(ballots) != len(sampled):
        return {}
    return {f"maj@{k}": [majority(ballot, k, seed) for ballot in ballots] for k in ks}


def macro(benchmarks: Sequence[Values], seed: int = 0) -> Figures:
    """The mean over benchmarks of each figure that all of them have.

    Every benchmark counts the same, whatever its size. The interval draws each benchmark's problems
    within it: it says how sure the mean over these benchmarks is, nothing of others.
    """
    common = [name for name in benchmarks[0] if all(name in each for each in benchmarks)]
    return {name: stratified([each[name] for each in benchmarks], seed) for name in common}


def stratified(groups: Sequence[Sequence[float]], seed: int = 0) -> Estimate:
    """The mean of B groups' means, and the bootstrap interval that draws within each group.

    Its error is sqrt(sum_b error_b^2) / B.
    """
    each = [mean_interval(values, seed=seed) for values in groups]
    means = np.zeros(DRAWS)
    for place, values in enumerate(groups):
        x, rng = np.asarray(values, dtype=np.float64), stream_rng(seed, "eval/macro", place)
        means += [x[rng.integers(0, len(x), size=len(x))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means / len(groups), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(
        value=float(np.mean([one.value for one in each])),
        error=float(np.sqrt(sum(one.error**2 for one in each))) / len(groups),
        low=float(low),
        high=float(high),
        n=len(groups),
    )
