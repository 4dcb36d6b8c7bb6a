"""By which reward a response is right: one for all problems, or one for each task of a mix."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from rlkit.errors import UserError, suggest
from rlkit.interfaces import TASK, Reward

FULL_MARKS = 1.0 - 1e-6
"""A response is right if the judging reward gives it at least this."""


@dataclass(frozen=True, slots=True)
class Judges:
    """The names of the rewards that say whether a response is right."""

    default: str
    by_task: Mapping[str, str] = field(default_factory=dict)
    """Of a mix: task -> reward."""

    def of(self, columns: Mapping[str, object]) -> str:
        """The reward that judges responses to the problem with these columns."""
        if not self.by_task:
            return self.default
        return self.by_task.get(str(columns.get(TASK)), self.default)

    @property
    def words(self) -> str:
        """How the user is told of them: 'math', or 'math/math' for math and 'sums/sum' for sums."""
        if not self.by_task:
            return f"'{self.default}'"
        each = [f"'{reward}' for {task}" for task, reward in self.by_task.items()]
        return " and ".join([", ".join(each[:-1]), each[-1]]) if len(each) > 1 else each[0]


def find_judges(
    rewards: Mapping[str, Reward],
    tasks: Collection[str],
    wanted: str | None,
    *,
    training: bool = False,
) -> Judges:
    """The judge of each task, or of all: `wanted`, or the first that marks correctness.

    In a mix `wanted` may leave out the task: math is the reward math/math of the task math. Raises
    UserError where no reward marks correctness, and for a wanted one that does not exist. Judges of
    `training` say which prompts are solved.
    """
    if wanted is not None and not any(_is_called(name, wanted) for name in rewards):
        raise UserError(
            f"eval.reward={wanted}, but this run evaluates with no such reward."
            f"{suggest(wanted, rewards)} Rewards: {', '.join(rewards)}"
        )
    by_task = {
        task: _judge(
            {n: r for n, r in rewards.items() if r.applies_to_task(task)},
            wanted,
            f" of {task}",
            training=training,
        )
        for task in tasks
    }
    if by_task:
        return Judges(next(iter(by_task.values())), by_task)
    return Judges(_judge(rewards, wanted, " of this run", training=training))


def _is_called(name: str, wanted: str) -> bool:
    return wanted in (name, name.rpartition("/")[2])


def _judge(rewards: Mapping[str, Reward], wanted: str | None, whose: str, *, training: bool) -> str:
    for name in rewards:
        if wanted is not None and _is_called(name, wanted):
            return name
    for marks in (True, None):
        for name, reward in rewards.items():
            if reward.itself.marks_correctness is marks and reward.config.limit is None:
                return name
    which = f"no reward{whose} marks correctness ({', '.join(rewards) or 'there is none'})"
    if training:
        raise UserError(
            f"{which} and is trained on, and pass rates count right answers; train on one that "
            "does, or leave prompts.order and prompts.drop_solved out"
        )
    other = f", or choose one by name: eval.reward={next(iter(rewards))}" if rewards else ""
    raise UserError(
        f"{which}, which pass@1 counts; add one that does (reward=[...] takes the place of the "
        f"task's own){other}"
    )
