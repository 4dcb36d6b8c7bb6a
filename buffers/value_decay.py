"""A queue that prefers new and little-used groups (Trinity-RFT)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from buffers.replay import Entry, Stock, StockConfig
from rlkit.batch import Group
from rlkit.ops import stream_rng
from rlkit.registry import register

Floats = npt.NDArray[np.float64]


class ValueDecayConfig(StockConfig):
    """Settings of the queue."""

    capacity: Annotated[int, Field(ge=1)] = 10_000
    decay: Annotated[float, Field(ge=0)] = 2.0
    """What a use takes off the priority, in steps."""
    use_limit: Annotated[int, Field(ge=1)] | None = 3
    """Uses after which a group leaves, the one in its own step included; null = no limit."""
    cooldown: Annotated[int, Field(ge=1)] = 1
    """Steps a group rests after a use. Trinity counts seconds."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of a normal number added to the priority at each insertion, in steps."""


def queue_priority(version: Floats, uses: Floats, decay: float, noise: Floats) -> Floats:
    """version - decay * uses + noise."""
    return version - decay * uses + noise


@register("buffer", "value_decay")
class ValueDecay(Stock[ValueDecayConfig]):
    """Replays the groups of the highest priority; those drawn return with a lower one.

        priority = version - decay * uses + N(0, noise^2)

    `version` is the oldest weights that sampled the group. A group leaves after `use_limit` uses
    and rests `cooldown` steps after each; of equal priorities the newer goes first. A full queue
    loses its lowest priorities, which may be the new groups' own. Source: Trinity-RFT's experience
    buffer (arXiv:2505.17826). Status: adapted. Its units are responses and seconds, here groups and
    steps; there all data passes through the queue, here the fresh groups are trained first. The use
    limit belongs to its variant with noise.

    Public code: Trinity-RFT's priority queue, with linear decay 2, limit 3, noise 0, capacity
    10,000.
    """

    sources = ("2505.17826",)

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups and at most as many replayed ones as the batch has places left."""
        rested = (e for e in self.entries if step - e.last_used >= self.config.cooldown)
        ranked = [e for tier in self.tiers(rested, step) for e in self._by_priority(tier)]
        best = ranked[: batch - self.fresh_share(batch)]
        trained = fresh + self.use(best, step)
        self._renew_noise(best, step, "drawn")
        return trained

    def add(self, fresh: list[Group], step: int) -> None:
        """Store this step's groups; forget what is worn out or too old, then the lowest."""
        self._renew_noise(self.keep(fresh, step), step, "added")
        limit = self.config.use_limit
        left = [e for e in self.usable(step + 1) if limit is None or e.uses < limit]
        if len(left) > self.config.capacity:
            kept = {id(entry) for entry in self._by_priority(left)[: self.config.capacity]}
            left = [entry for entry in left if id(entry) in kept]
        self.entries = left

    def _by_priority(self, entries: list[Entry]) -> list[Entry]:
        """Highest first; of equal ones the newest."""
        version, uses, noise = (
            np.array(column, dtype=np.float64)
            for column in (
                [-entry.staleness(0) for entry in entries],
                [entry.uses for entry in entries],
                [entry.noise for entry in entries],
            )
        )
        priority = queue_priority(version, uses, self.config.decay, noise)
        order = np.lexsort((-np.arange(len(entries)), -priority))
        return [entries[i] for i in order]

    def _renew_noise(self, entries: list[Entry], step: int, event: str) -> None:
        rng = stream_rng(self.context.seed, f"buffer/{event}", step)
        for entry in entries:
            entry.noise = float(rng.normal(0.0, self.config.noise))
