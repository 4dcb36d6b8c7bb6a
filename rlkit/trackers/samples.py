"""Which responses of a step a tracker shows, and how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from rlkit.interfaces import PartConfig

COLUMNS = ("step", "prompt", "response", "reward", "advantage", "age", "ratio", "length")
"""The columns of a table of responses."""
NUMBERS = ("reward", "advantage", "age", "ratio", "length")
"""The columns that have a distribution."""
Row = Mapping[str, Any]


class SamplesConfig(PartConfig):
    """How many responses a tracker keeps."""

    samples: Annotated[int, Field(ge=0)] = 4
    """Responses of a training step that are shown, spread evenly over its rewards, the worst and
    the best among them; 0 = none."""
    samples_every: Annotated[int, Field(ge=1)] = 10
    """Training steps between two whose responses are shown; the first step is one."""

    def samples_due(self, step: int) -> bool:
        """Whether responses of this step are shown."""
        return self.samples > 0 and (step - 1) % self.samples_every == 0


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` rows at even distances in the order of their rewards, the worst first."""
    order = sorted(rows, key=lambda row: float(row["reward"]))
    if len(order) <= count:
        return order
    if count == 1:
        return order[-1:]
    return [order[round(i * (len(order) - 1) / (count - 1))] for i in range(count)]


def as_text(prompt: Any) -> str:
    """A prompt as text; of messages, the content of each after its role."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(
        f"{each['role']}: {_content(each.get('content'))}"
        if isinstance(each, Mapping) and "role" in each
        else str(each)
        for each in prompt
    )


def _content(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, default=str)


def cells(step: int, row: Row) -> list[Any]:
    """A row of the table, in the order of COLUMNS; None for what is unknown."""
    known = {**row, "step": step, "prompt": as_text(row["prompt"])}
    return [known.get(column) for column in COLUMNS]


def distributions(rows: Sequence[Row]) -> dict[str, list[float]]:
    """The values of each number that the rows have."""
    found = {
        name: [float(row[name]) for row in rows if row.get(name) is not None] for name in NUMBERS
    }
    return {name: values for name, values in found.items() if values}
