"""A reward of some tasks of a mix: it sees their rows alone, and does not apply to the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rlkit.errors import UserError
from rlkit.interfaces import TASK, Reward, RunContext
from rlkit.rewards.environment import COLUMN, HANDLES
from rlkit.rewards.scoring import FINISH_REASONS
from rlkit.rewards.values import RowFailed, numbers_of


class OnTasks(Reward):
    """Hands a reward the responses to its tasks, as a run of these tasks alone would.

    `columns` are those of each task's rows, which become known when the rows are read.
    """

    def __init__(self, reward: Reward, name: str, columns: Mapping[str, Collection[str]]) -> None:
        super().__init__(reward.config)
        self.reward = reward
        self.name = name
        self.columns = columns

    @property
    def itself(self) -> Reward[Any]:
        """The reward that scores."""
        return self.reward

    def over(self, reward: Reward) -> OnTasks:
        """Another reward of the same tasks."""
        return OnTasks(reward, self.name, self.columns)

    def applies_to_task(self, task: str) -> bool:
        """Whether the task is one of its own."""
        return task in self.columns

    def open(self, context: RunContext) -> None:
        """Open the reward itself."""
        super().open(context)
        self.reward.open(context)

    def notes(self) -> Sequence[str]:
        """Those of the reward itself."""
        return self.reward.notes()

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The reward's values for responses to its tasks, None for others.

        Raises UserError for a row that does not say which task it is of.
        """
        whose = columns.get(TASK, [None] * len(prompts))
        if None in whose:
            raise UserError(
                f"a row without the column '{TASK}' came to a mix of tasks, which cannot know its "
                f"rewards; give it that column, such as {TASK}={next(iter(self.columns))}"
            )
        rows = [i for i, task in enumerate(whose) if task in self.columns]
        out: list[float | None] = [None] * len(prompts)
        if not rows:
            return out
        own = {"completion_ids", FINISH_REASONS, COLUMN, HANDLES}.union(*self.columns.values())
        try:
            values = self.reward(
                [prompts[i] for i in rows],
                [completions[i] for i in rows],
                **{name: [v[i] for i in rows] for name, v in columns.items() if name in own},
            )
        except RowFailed as failed:
            raise RowFailed(rows[failed.row]) from failed.__cause__
        for i, value in zip(rows, numbers_of(self.name, values, rows), strict=True):
            out[i] = value
        return out

    def counts(self) -> dict[str, int]:
        """Those of the reward itself."""
        return self.reward.counts()

    def close(self) -> None:
        """Close the reward itself."""
        self.reward.close()
