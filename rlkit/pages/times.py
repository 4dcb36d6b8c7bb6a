"""Where a run's time went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rlkit.runs.records import Record, RunRecords

PARTS: Mapping[str, str] = {
    "rollout": "generation",
    "reward": "rewards",
    "forward": "log-probs",
    "update": "updates",
    "sync": "sync",
    "rest": "rest",
}
"""What a step is timed in, and its name for the reader. `rest` is what no timer covers."""
REST = "time/rest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds of a run."""

    parts: Mapping[str, float]
    """Part -> seconds, of those that were logged, in the order of PARTS."""
    steps: float
    """All training steps together."""
    evaluations: float

    def share(self, part: str) -> float:
        """A part's share of the training steps."""
        return self.parts[part] / self.steps


def rest(record: Record) -> float | None:
    """The seconds of a step outside its timers; None if the step was not timed.

    0 where timers overlap and have more than the step.
    """
    if "time/step" not in record:
        return None
    timed = sum(record.get(f"time/{part}", 0.0) for part in PARTS if part != "rest")
    return max(0.0, record["time/step"] - timed)


def times(run: RunRecords) -> Times | None:
    """Where the time went; None if no step was timed."""
    steps = [record for record in run.records if "time/step" in record]
    parts = {
        part: total for part in PARTS if part != "rest" and (total := run.total(f"time/{part}")) > 0
    }
    parts["rest"] = sum(rest(record) or 0.0 for record in steps)
    whole = sum(parts.values())
    if not math.isfinite(whole) or whole <= 0:
        return None
    return Times(parts=parts, steps=whole, evaluations=run.total("time/eval"))
