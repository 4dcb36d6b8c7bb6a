"""verl's `trainer.rollout_data_dir`: <step>.jsonl, one response per line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rlkit.stored.foreign.record import Record, column, json_lines, number

OWN = ("input", "output", "score", "step", "gts")


def records(path: Path, reward: str | None) -> Iterator[Record]:
    """The responses of a file: `input`, `output`, `score`, `step`, and what rewards added.

    `reward` names another column than `score` to count. Both texts are decoded without special
    tokens, so the markers of a chat template are lost from `input`: the prompt is re-encoded as
    plain text. There are no token ids and no log-probs.
    """
    name = reward or "score"
    for place, row in json_lines(path):
        prompt = str(column(row, "input", place))
        step = int(number(row.get("step", 0), "step", place))
        yield Record(
            place=place,
            group=(step, prompt),
            prompt=prompt,
            response=str(column(row, "output", place)),
            reward=number(column(row, name, place), name, place),
            rewards={
                key: float(value)
                for key, value in row.items()
                if key not in OWN and isinstance(value, int | float)
            },
            columns={"answer": row["gts"]} if row.get("gts") is not None else {},
            step=step,
        )
