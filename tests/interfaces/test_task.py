"""Defaults of tasks that a task need not restate."""

from __future__ import annotations

import pytest

from rlkit.interfaces import Task, TaskConfig, TaskData


class OwnTask(Task):
    """Only its base."""

    def load(self, seed: int) -> TaskData:
        return TaskData(train=[{"prompt": "a"}], eval=[{"prompt": f"held out {seed}"}])


def test_a_task_without_a_scorer_says_so() -> None:
    task = OwnTask()
    assert not task.scores and not task.embedded and task.default_rewards == ()
    assert task.all_problems(7) == [{"prompt": "held out 7"}]
    with pytest.raises(TypeError, match="OwnTask has no scorer of its own"):
        task.score("1", {})


def test_the_settings_of_every_task() -> None:
    assert type(OwnTask().config) is TaskConfig and OwnTask().config.overlong == "error"
    with pytest.raises(ValueError, match="overlong"):
        TaskConfig.model_validate({"overlong": "cut"})
