"""Each check of a task catches one that is broken in its way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

import rlkit
from rlkit.interfaces import Task, TaskData
from rlkit.testing import check_task
from rlkit.testing import tasks as kit

COUNT = itertools.count()
ROWS: list[Any] = [{"prompt": "1+1=", "answer": "2"}]


class Sound(Task):
    """One problem."""

    scores = True
    train: ClassVar[list[Any]] = ROWS
    held_out: ClassVar[list[Any]] = ROWS
    value: float | None = 0.0

    def load(self, seed: int) -> TaskData:
        return TaskData(train=self.train, eval=self.held_out)

    def score(self, completion: str, row: Mapping[str, Any]) -> float | None:
        return self.value


class Unsure(Sound):
    value = None


class Empty(Sound):
    held_out: ClassVar[list[Any]] = []


class Nameless(Sound):
    train: ClassVar[list[Any]] = [{"question": "1+1="}]


class Reserved(Sound):
    train: ClassVar[list[Any]] = [{"prompt": "1+1=", "completions": "2"}]


class Infinite(Sound):
    value = float("inf")


class Drifting(Sound):
    def load(self, seed: int) -> TaskData:
        return TaskData(train=[{"prompt": str(next(COUNT))}], eval=ROWS)


def test_sound_ones_pass() -> None:
    check_task(Sound())
    check_task(Unsure())
    check_task(rlkit.build("task", "arithmetic"))


@pytest.mark.parametrize(
    ("check", "broken", "said"),
    [
        (kit.every_row_has_a_prompt_and_columns_of_its_own, Empty, "the eval set is empty"),
        (kit.every_row_has_a_prompt_and_columns_of_its_own, Nameless, "no column 'prompt'"),
        (kit.every_row_has_a_prompt_and_columns_of_its_own, Reserved, "called 'completions'"),
        (kit.rows_are_the_same_at_each_load, Drifting, "give other rows"),
        (kit.its_own_scores_are_finite, Infinite, "not a finite number"),
    ],
)
def test_a_broken_one_is_caught(
    check: Callable[[Any], None], broken: type[Sound], said: str
) -> None:
    check(Sound())
    with pytest.raises(AssertionError, match=said):
        check(broken())
