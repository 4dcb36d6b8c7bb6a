"""What trackers are shown of the responses that a step trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlkit.batch import Group, Sample, Score
from rlkit.ops import masked_mean, masked_ratio
from rlkit.training.metrics import CLAMP, completion_rows
from rlkit.training.state import Session


def track_samples(
    session: Session, groups: Sequence[Group], scores: Mapping[int, Score], step: int, done: int
) -> None:
    """Show the responses of a stage's `step`, the run's `done`, to the trackers that ask for it."""
    asked = [tracker for tracker in session.trackers.values() if tracker.wants_samples(done)]
    if asked:
        rows = sample_rows(groups, scores, step, session.policy.tokenizer)
        for tracker in asked:
            tracker.log_samples(done, rows)


def sample_rows(
    groups: Sequence[Group], scores: Mapping[int, Score], step: int, tokenizer: Any
) -> list[dict[str, Any]]:
    """One row per response, as `Tracker.log_samples` has it."""
    samples = [sample for group in groups for sample in group.samples]
    rows = completion_rows(groups, step, tokenizer)
    return [
        row | {"length": len(sample.response_ids)} | _learned(sample, scores.get(sample.sample_id))
        for row, sample in zip(rows, samples, strict=True)
    ]


def _learned(sample: Sample, score: Score | None) -> dict[str, float]:
    """The advantage and the ratio of a response; that of a demonstration is unknown."""
    if score is None:
        return {}
    found = {"advantage": score.advantage}
    if sample.source != "expert":
        mask = sample.loss_mask
        ratio = masked_ratio(score.logp, sample.behavior_logp, mask, CLAMP)
        found["ratio"] = float(masked_mean(ratio, mask))
    return found
