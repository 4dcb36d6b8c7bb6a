"""What a reincarnation schedule must do."""

from __future__ import annotations

import math
from typing import Any

from rlkit.interfaces import Progress, ReincarnationSchedule
from rlkit.testing.base import require, stored

STEPS = 120


def progress(step: int) -> Progress:
    """A run that gets better and then stalls."""
    score = min(step, STEPS // 2) / STEPS
    return Progress(
        step=step,
        steps=STEPS,
        rollouts=64 * (step - 1),
        metrics={"reward/mean": score, "policy/loss": 0.1, "anchor/kl": score / 10},
        eval={"eval/pass@1": score, "eval/greedy": score},
        eval_step=step - 1,
    )


def every_phase_can_be_carried_out(schedule: ReincarnationSchedule[Any]) -> None:
    """A name, known events, a positive number of passes, and values for dotted field names."""
    schedule = type(schedule)(schedule.config)
    for step in range(1, STEPS + 1):
        phase = schedule.checked(progress(step))
        require(phase.name, "a phase has no name")
        passes = phase.updates_per_batch
        require(passes is None or passes >= 1, f"updates_per_batch={passes} is not 1 or more")
        for name, value in phase.values.items():
            require("." in name, f"the value '{name}' needs a dotted field name, as anchor.beta")
            require(math.isfinite(value), f"the value of {name} is not finite")


def a_resumed_schedule_gives_the_same_phases(schedule: ReincarnationSchedule[Any]) -> None:
    """A schedule with the saved state gives the same phases from any step on."""
    schedule = type(schedule)(schedule.config)
    for step in range(1, STEPS + 1):
        again = type(schedule)(schedule.config)
        again.load_state_dict(stored(schedule.state_dict()))
        require(
            again.phase(progress(step)) == schedule.phase(progress(step)),
            f"the phase of step {step} differs after a checkpoint; complete state_dict",
        )


SCHEDULE = (every_phase_can_be_carried_out, a_resumed_schedule_gives_the_same_phases)
