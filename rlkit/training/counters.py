"""What a run has done so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rlkit.runs.checkpoint import load_tree

MEAN_LENGTH = "mean_length"


@dataclass
class Counters:
    """What a run has done so far."""

    step: int = 0
    """Steps of the current stage."""
    stage: int = 0
    """Stages before it."""
    offset: int = 0
    """Steps before it."""
    rollouts: int = 0
    tokens: int = 0
    trained: int = 0
    rebirths: int = 0
    phases: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    eval: dict[str, float] = field(default_factory=dict)
    eval_step: int = 0
    best: float | None = None
    """The best evaluation (pass@1) that has a checkpoint."""
    best_step: int | None = None
    """The step of that checkpoint."""
    lengths: dict[str, float] = field(default_factory=dict)
    """The mean length of responses in the first evaluation, by its metric's name."""
    values: dict[str, float] = field(default_factory=dict)
    """Config fields that schedules have set, by dotted name."""

    @property
    def done(self) -> int:
        """Steps of the whole run."""
        return self.offset + self.step

    def with_length_ratios(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """An evaluation's metrics, and each mean length over that of the first evaluation."""
        now = {name: value for name, value in metrics.items() if name.endswith(MEAN_LENGTH)}
        self.lengths = {**now, **self.lengths}
        ratios = {
            name.removesuffix(MEAN_LENGTH) + "length_ratio": value / self.lengths[name]
            for name, value in now.items()
            if self.lengths[name]
        }
        return {**metrics, **ratios}

    def next_stage(self) -> Counters:
        """The counters that the next stage starts with."""
        return replace(self, step=0, stage=self.stage + 1, offset=self.done, values={})


def load_counters(checkpoint: Path) -> Counters:
    """The counters a checkpoint holds."""
    return Counters(**load_tree(checkpoint / "state" / "counters"))
