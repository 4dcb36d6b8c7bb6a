"""Sums of which few are trained, so that they come again: `task=few_sums`, a plugin of studies.

Buffers that replay a prompt's own earlier responses need prompts that are met more than once.
"""

from __future__ import annotations

import random
from typing import Annotated

from pydantic import Field

from rlkit.errors import UserError
from rlkit.interfaces import TaskData
from rlkit.registry import register
from rlkit.tasks.arithmetic import Arithmetic, ArithmeticConfig, Sums


class FewSumsConfig(ArithmeticConfig):
    """Settings of the few sums."""

    problems: Annotated[int, Field(ge=1)] = 80
    """How many are trained, drawn by the run's seed. The held-out ones are those of all sums."""


@register("task", "few_sums")
class FewSums(Arithmetic):
    """The running sums, with few problems to train on.

    Status: our choice.
    """

    config: FewSumsConfig

    Config = FewSumsConfig

    def load(self, seed: int) -> TaskData:
        """Some of the training problems, and all that are held out."""
        data = super().load(seed)
        assert isinstance(data.train, Sums)
        if self.config.problems > len(data.train):
            raise UserError(f"task.problems={self.config.problems}: there are {len(data.train)}")
        chosen = random.Random(seed).sample(range(len(data.train)), self.config.problems)
        return TaskData(
            train=Sums([data.train.problems[i] for i in sorted(chosen)]), eval=data.eval
        )
