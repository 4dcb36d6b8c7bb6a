"""TRL's `log_completions=True`: completions/completions_<step>.parquet of GRPOTrainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlkit.errors import UserError
from rlkit.stored.foreign.record import Record, column, number, prompt_of
from rlkit.stored.parquet import read_rows

OWN = ("step", "prompt", "completion", "advantage")
"""Columns that are no rewards."""


def records(path: Path, reward: str | None) -> Iterator[Record]:
    """The responses of a file.

    It has one numeric column for each reward and none for their sum. `reward` names the column that
    counts; None = the sum of all, which is TRL's reward if its weights are 1. There are no token
    ids and no log-probs.
    """
    for index, row in enumerate(read_rows(path), start=1):
        place = f"{path.name} row {index}"
        rewards = {
            name: float(value)
            for name, value in row.items()
            if name not in OWN and isinstance(value, int | float) and not isinstance(value, bool)
        }
        if not rewards:
            raise UserError(f"{place} has no reward; columns: {', '.join(row)}")
        counted = rewards.values() if reward is None else [column(rewards, reward, place)]
        prompt = prompt_of(column(row, "prompt", place), "prompt", place)
        yield Record(
            place=place,
            group=(column(row, "step", place), repr(prompt)),
            prompt=prompt,
            response=_text(column(row, "completion", place), place),
            reward=number(sum(counted), reward or "the sum of the rewards", place),
            rewards=rewards,
            step=row["step"],
        )


def _text(completion: Any, place: str) -> str:
    """The text of a completion: a string, or one assistant message."""
    answer = prompt_of(completion, "completion", place)
    if isinstance(answer, str):
        return answer
    if len(answer) != 1:
        raise UserError(
            f"{place}: the completion has {len(answer)} messages; only one turn can be imported"
        )
    return answer[0]["content"]
