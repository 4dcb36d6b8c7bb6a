"""A queue that prefers new and little-used groups (Trinity-RFT)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from buffers.rows import Floats, Ints
from buffers.selection import ages, allowed, largest, smallest, tiers_of
from buffers.stock import Stock, StockConfig
from rlkit.batch import Group
from rlkit.ops import stream_rng
from rlkit.registry import register


class ValueDecayConfig(StockConfig):
    """Settings of the queue."""

    capacity: Annotated[int, Field(ge=1)] = 10_000
    decay: Annotated[float, Field(ge=0)] = 2.0
    """What a use takes off the priority, in steps."""
    use_limit: Annotated[int, Field(ge=1)] | None = 3
    """Uses after which a group leaves, the one in its own step included; null = no limit."""
    cooldown: Annotated[int, Field(ge=1)] = 1
    """Steps from a use of a group to the next, at least. Trinity counts seconds."""
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
    and comes again `cooldown` steps after each, or later; of equal priorities the newer goes first.
    A full queue loses its lowest priorities, which may be the new groups' own. Source:
    Trinity-RFT's experience buffer (arXiv:2505.17826). Status: adapted. Its units are responses and
    seconds, here groups and steps; there all data passes through the queue, here the fresh groups
    are trained first. The use limit belongs to its variant with noise.

    Public code: Trinity-RFT's priority queue, with linear decay 2, limit 3, noise 0, capacity
    10,000.
    """

    sources = ("2505.17826",)

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups and at most as many replayed ones as the batch has places left."""
        rows, priority = self.rows, self._priority()
        rested = step - rows["last_used"] >= self.config.cooldown
        best = np.zeros(0, dtype=np.int64)
        for tier in tiers_of(rows["oldest"], step, self.config):
            ready = tier[rested[tier]]
            places = batch - self.fresh_share(batch) - len(best)
            best = np.concatenate([best, ready[largest(priority[ready], places)]])
        trained = fresh + self.use(best, step)
        self._renew_noise(best, step, "drawn")
        return trained

    def add(self, fresh: list[Group], step: int) -> None:
        """Store this step's groups; forget what is worn out or too old, then the lowest."""
        before = len(self.rows)
        self.keep(fresh, step)
        self._renew_noise(np.arange(before, len(self.rows)), step, "added")
        self.rows.keep(allowed(self.rows["oldest"], step + 1, self.config))
        if self.config.use_limit is not None:
            self.rows.keep(self.rows["uses"] < self.config.use_limit)
        kept = np.ones(len(self.rows), dtype=bool)
        kept[smallest(self._priority(), len(self.rows) - self.config.capacity)] = False
        self.rows.keep(kept)

    def _priority(self) -> Floats:
        rows = self.rows
        version = -ages(rows["oldest"], 0).astype(np.float64)
        return queue_priority(version, rows["uses"], self.config.decay, rows["noise"])

    def _renew_noise(self, places: Ints, step: int, event: str) -> None:
        rng = stream_rng(self.context.seed, f"buffer/{event}", step)
        self.rows["noise"][places] = rng.normal(0.0, self.config.noise, len(places))
