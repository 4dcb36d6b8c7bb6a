"""A stock of whole groups with counts of their use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import Field

from buffers.rows import Ints, Rows
from buffers.selection import allowed, version_number
from buffers.storage import Stored
from buffers.whole_groups import WholeGroups, WholeGroupsConfig
from rlkit.batch import Group
from rlkit.interfaces import State


class StockConfig(WholeGroupsConfig):
    """Settings of every buffer that keeps a stock of whole groups."""

    capacity: Annotated[int, Field(ge=1)] = 256
    """Stored groups."""


S = TypeVar("S", bound=StockConfig)
COLUMNS: dict[str, type] = {
    "stored": object,
    "first": np.int64,
    "responses": np.int64,
    "oldest": np.int64,
    "uses": np.int64,
    "last_used": np.int64,
    "advantage": object,
    "noise": np.float64,
}
NUMBERS = ("uses", "last_used", "advantage", "noise")
"""What a state keeps beside each group; the other columns follow from the group."""


class Stock(WholeGroups[S]):
    """Whole groups with use counts. A subclass says which of them a step replays.

    Every fresh group is trained in the step that made it, stored afterwards, and counts as used
    once.
    """

    keeps_columns = True
    columns: ClassVar[Mapping[str, type]] = {}
    """Further columns of `rows`, which `numbers` fills."""

    def __init__(self, config: S | None = None) -> None:
        super().__init__(config)
        self.rows = Rows(**COLUMNS, **self.columns)
        """The stored groups, oldest first. `stored`: the group and its numbers; `first`: the id of
        its first response; `responses`: how many it has; `oldest`: the oldest weights that sampled
        a token, or NO_TOKEN; `uses`: how many steps trained on it, the one that generated it
        included; `last_used`: the last of them; `advantage`: the list of its responses' when it was
        last trained, empty = not seen yet; `noise`: what was added to its priority."""

    def keep(self, fresh: Sequence[Group], step: int) -> None:
        """Store fresh groups; nothing is evicted yet.

        Raises UserError when a prompt's columns are no plain values, which no checkpoint could
        keep.
        """
        stored = self.storage.put(fresh, self.rows["stored"])
        self._file(stored, uses=1, last_used=step, advantage=[[] for _ in stored], noise=0.0)

    def numbers(
        self, stored: Sequence[Stored], advantage: Sequence[Sequence[float]]
    ) -> dict[str, object]:
        """What `columns` hold of groups whose advantages are these."""
        return {}

    def evict(self, step: int) -> None:
        """Forget what the step may not replay, then the oldest beyond the capacity."""
        self.rows.keep(allowed(self.rows["oldest"], step, self.config))
        self.rows.keep(np.arange(len(self.rows)) >= len(self.rows) - self.config.capacity)

    def use(self, places: Ints, step: int) -> list[Group]:
        """Count a use of the groups at these places, each once; the groups."""
        self.rows["uses"][places] += 1
        self.rows["last_used"][places] = step
        return [item.group for item in self.rows["stored"][places]]

    def stats(self) -> dict[str, float]:
        """Stored groups, and how often they were trained on average and at most."""
        uses = self.rows["uses"]
        return {
            "groups": float(len(uses)),
            "uses_mean": int(uses.sum()) / max(1, len(uses)),
            "uses_max": float(uses.max(initial=0)),
        }

    def clear(self) -> None:
        """Forget every group."""
        self.rows.clear()
        self.storage.clear()

    def __len__(self) -> int:
        return int(self.rows["responses"].sum())

    def state_dict(self) -> State:
        """The entries."""
        rows = zip(*map(self.rows.listed, NUMBERS), strict=True)
        numbers = [dict(zip(NUMBERS, row, strict=True)) for row in rows]
        stored = self.storage.state_dict(self.rows.listed("stored"))
        return {"entries": {"stored": stored, "numbers": numbers}}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave.

        Raises UserError when a file it names is missing or changed.
        """
        stored = self.storage.load_state_dict(state["entries"]["stored"])
        numbers = state["entries"]["numbers"]
        self.rows.clear()
        self._file(stored, **{name: [row[name] for row in numbers] for name in NUMBERS})

    def _file(
        self, stored: Sequence[Stored], *, advantage: list[list[float]], **counts: Any
    ) -> None:
        self.rows.add(
            len(stored),
            stored=stored,
            first=[item.sample_ids[0] for item in stored],
            responses=[len(item.sample_ids) for item in stored],
            oldest=[version_number(item.oldest_version) for item in stored],
            advantage=advantage,
            **counts,
            **self.numbers(stored, advantage),
        )
