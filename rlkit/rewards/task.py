"""The reward of tasks that score completions themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlkit.errors import UserError
from rlkit.interfaces import Reward, RewardConfig, Task
from rlkit.registry import build


class TaskReward(Reward):
    """Hands each completion and its row to the task's own scorer."""

    marks_correctness = True

    def __init__(self, task: Task) -> None:
        super().__init__(RewardConfig())
        self.task = task

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The task's score of each completion."""
        for given in ("completion_ids", "finish_reasons"):
            columns.pop(given, None)
        rows = [
            {"prompt": prompt, **{name: values[i] for name, values in columns.items()}}
            for i, prompt in enumerate(prompts)
        ]
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        return self.task.score_all(texts, rows)

    def counts(self) -> dict[str, int]:
        """Those of the task's scorer."""
        return self.task.counts()


def default_rewards(task: Task[Any], name: str) -> dict[str, Reward]:
    """The rewards of a task if none is chosen. Raises UserError if it has none of its own."""
    if task.scores:
        return {name: TaskReward(task)}
    if not task.default_rewards:
        raise UserError(
            f"task={name} has no scorer of its own; choose one with reward=[<name>], or an "
            "environment that scores: environment=<name>"
        )
    return {reward: build("reward", reward) for reward in task.default_rewards}
