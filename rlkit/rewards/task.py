"""The reward of tasks that score completions themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlkit.interfaces import Reward, RewardConfig, Task


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
        columns.pop("completion_ids", None)
        rows = [
            {"prompt": prompt, **{name: values[i] for name, values in columns.items()}}
            for i, prompt in enumerate(prompts)
        ]
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        return [self.task.score(text, row) for text, row in zip(texts, rows, strict=True)]
