"""Every part of a run, built but not yet loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlkit.config.run import RunConfig
from rlkit.config.scalars import Scalar
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.interfaces import Part, ReincarnationSchedule, ReplayBuffer, Reward, Task, Tracker
from rlkit.rollout.base import RolloutEngine
from rlkit.training.references import Parts

CONSOLE = "console"


RATES = ("learning_rate", "critic_learning_rate")


Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Composition:
    """Every part of a run, built and validated; nothing loaded yet."""

    raw: Raw
    config: RunConfig
    parts: Parts
    buffer: ReplayBuffer
    schedule: ReincarnationSchedule
    task: Task
    eval_task: Task
    engine: RolloutEngine[Any]
    rollouts: RolloutEngine[Any]
    """What generates: the engine, or the process it runs in."""
    rewards: Mapping[str, Reward]
    eval_rewards: Mapping[str, Reward]
    trackers: Mapping[str, Tracker]
    scalars: Mapping[str, Scalar]
    """Scalar schedules by the place they are written at ("anchor.beta")."""
    processes: Processes = SINGLE

    def say(self, line: str) -> None:
        """Tell the user, from the first process."""
        if CONSOLE in self.trackers:
            self.trackers[CONSOLE].message(line)

    @property
    def read_by_loss(self) -> frozenset[str] | None:
        """References the loss reads; None if the penalty may begin to read others later."""
        if "anchor.beta" in {*self.scalars, *self.schedule.fields()}:
            return None
        needs = (need for need in self.parts.loss.needs if need.startswith("anchor:"))
        return frozenset(need.removeprefix("anchor:") for need in needs)

    @property
    def sections(self) -> dict[str, Part[Any]]:
        """The parts by config section, for schedules that set fields."""
        parts = self.parts
        named: dict[str, Part[Any]] = {
            "loss": parts.loss,
            "advantage": parts.advantage,
            "buffer": self.buffer,
            "anchor": parts.anchor,
        }
        return named | {f"correction.{name}": part for name, part in parts.corrections}
