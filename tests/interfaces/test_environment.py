"""Defaults of tasks, rewards and trackers that a part need not restate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from rlkit.interfaces import Reward, Task, TaskData, Tracker
from rlkit.interfaces.environment import RewardConfig, TaskConfig


class OwnTask(Task):
    """Only its base."""

    def load(self, seed: int) -> TaskData:
        return TaskData(train=[{"prompt": "a"}], eval=[{"prompt": f"held out {seed}"}])


class OwnReward(Reward):
    """Only its base."""

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        raise AssertionError


class OwnTracker(Tracker):
    """Only its base."""

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        raise AssertionError

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        raise AssertionError


def test_a_task_without_a_scorer_says_so() -> None:
    task = OwnTask()
    assert not task.scores and not task.embedded and task.default_rewards == ()
    assert task.all_problems(7) == [{"prompt": "held out 7"}]
    with pytest.raises(TypeError, match="OwnTask has no scorer of its own"):
        task.score("1", {})


def test_what_is_optional_does_nothing() -> None:
    reward, tracker = OwnReward(), OwnTracker()
    assert reward.counts() == {}
    reward.close()
    tracker.message("a line")
    tracker.close(failed=False)


def test_defaults() -> None:
    assert type(OwnReward().config) is RewardConfig and OwnReward().config.weight == 1
    assert type(OwnTask().config) is TaskConfig and OwnTask().config.overlong == "error"
    with pytest.raises(ValueError, match="overlong"):
        TaskConfig.model_validate({"overlong": "cut"})


class Penalty(RewardConfig):
    """A weight of its own."""

    weight: float = 0.25


def test_a_cost_with_a_limit_has_no_weight_besides() -> None:
    assert Penalty(limit=0.5).weight == 0.25, "the default is nobody's choice"
    with pytest.raises(ValueError, match="weight has no effect beside limit"):
        Penalty(limit=0.5, weight=1.0)
    with pytest.raises(ValueError, match="multiplier is that of a limit"):
        Penalty(multiplier=1.0)
    with pytest.raises(ValueError, match=r"multiplier=2.0 must be at most multiplier_max=1.0"):
        Penalty(limit=0.5, multiplier=2.0, multiplier_max=1.0)
