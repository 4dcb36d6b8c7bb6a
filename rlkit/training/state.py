"""What a run has done so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlkit.config.run import RunConfig
from rlkit.config.scalars import Scalar
from rlkit.distributed.processes import ALONE, Processes
from rlkit.interfaces import (
    Part,
    ReincarnationSchedule,
    ReplayBuffer,
    Tracker,
)
from rlkit.models.policy import Policy
from rlkit.rollout.base import RolloutEngine
from rlkit.runs.checkpoint import (
    load_tree,
)
from rlkit.runs.folder import RunFolder
from rlkit.tasks.prompts import PromptStream
from rlkit.training.collect import Collector
from rlkit.training.evaluate import Evaluator
from rlkit.training.references import Parts


@dataclass
class Session:
    """Everything a run is composed of."""

    config: RunConfig
    policy: Policy
    parts: Parts
    buffer: ReplayBuffer
    schedule: ReincarnationSchedule
    engine: RolloutEngine[Any]
    collector: Collector
    prompts: PromptStream
    evaluator: Evaluator
    folder: RunFolder
    trackers: Mapping[str, Tracker]
    sections: Mapping[str, Part[Any]]
    """Parts by their config section: schedules set their fields, checkpoints keep their state."""
    scalars: Mapping[str, Scalar] = field(default_factory=dict)
    """Scalar schedules by the field they set ("anchor.beta")."""
    processes: Processes = ALONE
    """Who trains; all hold the same buffer and make the same decisions."""
    stop: Callable[[], bool] = lambda: False
    """Asked after each step: whether to end the run there, with a checkpoint."""
    describe: Callable[[Path], None] = lambda checkpoint: None
    """Writes what a checkpoint says of its run besides the state."""


@dataclass
class Counters:
    """What a run has done so far."""

    step: int = 0
    """Steps of the present stage."""
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
    values: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Steps of the whole run."""
        return self.offset + self.step

    def next_stage(self) -> Counters:
        """What the stage after this one begins with."""
        return replace(self, step=0, stage=self.stage + 1, offset=self.done, values={})


def load_counters(checkpoint: Path) -> Counters:
    """The counters a checkpoint holds."""
    return Counters(**load_tree(checkpoint / "state" / "counters"))
