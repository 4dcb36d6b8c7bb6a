"""The contract kit: what every part must do, as checks on one part.

`check_part("loss", MyLoss())` returns the names of the checks that passed and raises AssertionError
with one sentence at the first that fails. `rlkit check my_package.losses:MyLoss` runs the
same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlkit.interfaces import (
    AdvantageEstimator,
    AnchorPolicy,
    Correction,
    Environment,
    Part,
    PolicyLoss,
    ReincarnationSchedule,
    ReplayBuffer,
    Reward,
    Task,
    Tracker,
)
from rlkit.rollout.base import RolloutEngine
from rlkit.testing.advantages import ADVANTAGE
from rlkit.testing.anchors import ANCHOR
from rlkit.testing.base import EVERY
from rlkit.testing.buffers import BUFFER
from rlkit.testing.corrections import CORRECTION
from rlkit.testing.engines import ENGINE
from rlkit.testing.environments import ENVIRONMENT
from rlkit.testing.losses import LOSS
from rlkit.testing.rewards import REWARD
from rlkit.testing.schedules import SCHEDULE
from rlkit.testing.tasks import TASK
from rlkit.testing.trackers import TRACKER

CHECKS: dict[str, tuple[Callable[[Any], None], ...]] = {
    "loss": LOSS,
    "correction": CORRECTION,
    "advantage": ADVANTAGE,
    "buffer": BUFFER,
    "anchor": ANCHOR,
    "schedule": SCHEDULE,
    "reward": REWARD,
    "task": TASK,
    "rollout": ENGINE,
    "tracker": TRACKER,
    "environment": ENVIRONMENT,
}


def check_part(kind: str, part: Part[Any]) -> list[str]:
    """Run every check of a kind; the names of those that passed, which is all of them.

    Raises AssertionError with one sentence at the first check that fails.
    """
    checks = (*EVERY, *CHECKS[kind])
    for check in checks:
        check(part)
    return [check.__name__.replace("_", " ") for check in checks]


def check_loss(loss: PolicyLoss[Any]) -> None:
    """Masks, extreme ratios, row order, padding, micro-batches, and `needs`."""
    check_part("loss", loss)


def check_correction(correction: Correction[Any]) -> None:
    """A finite, detached weight of the right shape, blind to masked positions."""
    check_part("correction", correction)


def check_advantage(advantage: AdvantageEstimator[Any]) -> None:
    """Shapes, masks, equal rewards, row order."""
    check_part("advantage", advantage)


def check_buffer(buffer: ReplayBuffer[Any]) -> None:
    """Batches no larger than asked, samples untouched, draws that a resumed run repeats."""
    check_part("buffer", buffer)


def check_anchor(anchor: AnchorPolicy[Any]) -> None:
    """A penalty that vanishes at the references, and references that a checkpoint keeps."""
    check_part("anchor", anchor)


def check_schedule(schedule: ReincarnationSchedule[Any]) -> None:
    """Phases that a run can follow, the same ones after a resume."""
    check_part("schedule", schedule)


def check_reward(reward: Reward[Any]) -> None:
    """A finite number or None for every answer, also an empty one."""
    check_part("reward", reward)


def check_task(task: Task[Any]) -> None:
    """Rows with prompts, the same ones at each load."""
    check_part("task", task)


def check_rollout(engine: RolloutEngine[Any]) -> None:
    """As many responses as asked, with the policy's own log-probs, repeatable."""
    check_part("rollout", engine)


def check_tracker(tracker: Tracker[Any]) -> None:
    """A run's calls from its start to its end, and a run that goes on."""
    check_part("tracker", tracker)


def check_environment(environment: Environment[Any]) -> None:
    """Every turn answered or the last, episodes that do not depend on each other, rewards."""
    check_part("environment", environment)
