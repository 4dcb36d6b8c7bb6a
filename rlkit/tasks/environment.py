"""Problems that are an environment's own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlkit.interfaces import Task, TaskConfig, TaskData
from rlkit.registry import register


class EnvironmentTaskConfig(TaskConfig):
    """Settings of an environment's own problems."""

    size: Annotated[int, Field(ge=1)] = 2000
    """Training problems."""
    eval_size: Annotated[int, Field(ge=1)] = 256
    """Held-out problems."""
    prompt: str = ""
    """The user message that the environment's first text is added to."""


@register("task", "environment")
class EnvironmentTask(Task[EnvironmentTaskConfig]):
    """Rows for an environment that makes its problems in `reset`, as TRL's without a data set.

    A row is the prompt, a user message, and `problem`, a number from which an environment may draw
    the problem: 0 to size - 1 are trained on, the numbers from size on are held out.
    """

    def load(self, seed: int) -> TaskData:
        """The rows, whatever the seed."""
        c = self.config
        rows = [
            {"prompt": [{"role": "user", "content": c.prompt}], "problem": number}
            for number in range(c.size + c.eval_size)
        ]
        return TaskData(train=rows[: c.size], eval=rows[c.size :])
