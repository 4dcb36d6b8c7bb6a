"""What trackers are shown of the responses that a step trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlkit.batch import Group, Sample, Score
from rlkit.ops import masked_mean, masked_ratio
from rlkit.training.completions import Steps, completion_rows, pairs
from rlkit.training.metrics import CLAMP
from rlkit.training.prepare import TrainBatch
from rlkit.training.state import Session


def track_samples(
    session: Session,
    groups: Sequence[Group],
    batch: TrainBatch,
    scores: Mapping[int, Score],
    steps: Steps,
) -> None:
    """Show the responses of a step to the trackers that ask for it."""
    asked = [each for each in session.trackers.values() if each.wants_samples(steps.done)]
    if asked:
        rows = completion_rows(groups, batch, steps.step, session.policy.tokenizer)
        learned = with_ratios(rows, groups, scores)
        for tracker in asked:
            tracker.log_samples(steps.done, learned)


def with_ratios(
    rows: Sequence[Mapping[str, Any]], groups: Sequence[Group], scores: Mapping[int, Score]
) -> list[dict[str, Any]]:
    """The rows of the groups' responses, as `Tracker.log_samples` has them."""
    return [
        {**row, "length": row["tokens"], **_ratio(sample, scores.get(sample.sample_id))}
        for row, (_, sample) in zip(rows, pairs(groups), strict=True)
    ]


def _ratio(sample: Sample, score: Score | None) -> dict[str, float]:
    """The mean ratio of a response, unless it was not trained on or its behavior is not known."""
    mask = sample.loss_mask
    if score is None or sample.source == "expert" or sample.behavior_logp[mask].isnan().any():
        return {}
    ratio = masked_ratio(score.logp, sample.behavior_logp, mask, CLAMP)
    return {"ratio": float(masked_mean(ratio, mask))}
