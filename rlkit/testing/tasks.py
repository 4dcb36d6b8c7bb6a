"""What a task must do."""

from __future__ import annotations

import math
from typing import Any

from rlkit.errors import UserError
from rlkit.interfaces import Task
from rlkit.rewards.scoring import check_columns
from rlkit.tasks.prompts import check_row
from rlkit.testing.base import require

TRIED = 64
"""Rows of each set that are looked at."""


def sets(task: Task[Any], seed: int) -> dict[str, list[Any]]:
    """The first rows of both sets."""
    data = task.load(seed)
    return {
        name: [rows[i] for i in range(min(TRIED, len(rows)))]
        for name, rows in (("train", data.train), ("eval", data.eval))
    }


def every_row_has_a_prompt_and_columns_of_its_own(task: Task[Any]) -> None:
    """Both sets have rows; no column has a name that the run uses itself."""
    for name, rows in sets(task, 0).items():
        require(rows, f"the {name} set is empty")
        for index, row in enumerate(rows):
            try:
                check_row(f"row {index} of the {name} set", row)
                check_columns(row)
            except UserError as error:
                raise AssertionError(str(error)) from error


def rows_are_the_same_at_each_load(task: Task[Any]) -> None:
    """A resumed run finds its prompts by their places: the rows depend on config and seed alone."""
    for seed in (0, 1):
        again = type(task)(task.config)
        require(sets(task, seed) == sets(again, seed), "two loads with one seed give other rows")


def its_own_scores_are_finite(task: Task[Any]) -> None:
    """A task that scores gives a number to an empty answer and to the problem itself, or None."""
    for rows in sets(task, 0).values() if task.scores else ():
        for completion in ("", str(rows[0]["prompt"])):
            value: Any = task.score(completion, rows[0])
            require(
                value is None or (isinstance(value, int | float) and math.isfinite(value)),
                f"score gives {value!r} for {completion[:30]!r}, not a finite number",
            )


TASK = (
    every_row_has_a_prompt_and_columns_of_its_own,
    rows_are_the_same_at_each_load,
    its_own_scores_are_finite,
)
