"""A window of recent groups, and beside it the best group of each prompt (after HP3O)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from buffers.rows import Bools, Floats, Ints
from buffers.selection import allowed, tiers_of
from buffers.stock import Stock, StockConfig
from buffers.storage import Stored
from rlkit.batch import Group
from rlkit.registry import register


class HighlightConfig(StockConfig):
    """Settings of the window and of the share of the best."""

    window: Annotated[int, Field(ge=1)] = 2
    """How many earlier training steps stay replayable."""
    best_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the replayed groups that are drawn from the best of each prompt, rounded down; our
    choice."""
    capacity: Annotated[int, Field(ge=1)] = 10_000


def number_of(prompt_id: str) -> int:
    """64 bits that stand for a prompt, the same in every process."""
    digest = hashlib.blake2b(prompt_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def best_of_each(prompt: Ints, reward: Floats) -> Bools:
    """Where a row has the highest mean reward of its prompt, [rows]; of equal ones the last.

    Prompts and rewards: [rows], a number for each prompt.
    """
    order = np.lexsort((np.arange(len(prompt)), reward, prompt))
    last = np.append(prompt[order][1:] != prompt[order][:-1], True)[: len(prompt)]
    out = np.zeros(len(prompt), dtype=bool)
    out[order[last]] = True
    return out


@register("buffer", "highlight")
class Highlight(Stock[HighlightConfig]):
    """Replays groups of the last steps, and the best group each prompt has had so far.

    The window keeps the data near the policy, the best groups keep rare successes. Both are drawn
    uniformly, without replacement inside a step; a group that is recent and the best of its prompt
    is in both. Beyond the capacity the oldest leave, the best of a prompt last. Source: HP3O
    (arXiv:2502.15968), which trains the trajectory of highest return with random ones of a fifo. It
    is the readable neighbor of HiPPO, whose own formula could not be read. Status: adapted, from an
    abstract; what is best is decided per prompt, since prompts differ in what they reward.

    Public code: none was found.
    """

    sources = ("2502.15968",)

    columns: ClassVar[Mapping[str, type]] = {
        "mean": np.float64,
        "prompt": np.int64,
        "made": np.int64,
    }

    def numbers(
        self, stored: Sequence[Stored], advantage: Sequence[Sequence[float]]
    ) -> dict[str, object]:
        """The mean reward, the prompt as a number and the step of each group."""
        return {
            "mean": [sum(item.rewards) / len(item.rewards) for item in stored],
            "prompt": [number_of(item.prompt_id or item.group.prompt.prompt_id) for item in stored],
            "made": [item.step for item in stored],
        }

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups and at most as many replayed ones as the batch has places left."""
        rng, trained = self.rng(step), list(fresh)
        places = batch - self.fresh_share(batch)
        best, recent = self._best(), self._recent(step)
        for tier in tiers_of(self.rows["oldest"], step, self.config):
            wanted = int(self.config.best_fraction * places)
            chosen = _some(tier[best[tier]], wanted, rng)
            left = tier[recent[tier]]
            rest = _some(left[~np.isin(left, chosen)], places - len(chosen), rng)
            drawn = np.concatenate([chosen, rest])
            trained += self.use(drawn, step)
            places -= len(drawn)
        return trained

    def add(self, fresh: list[Group], step: int) -> None:
        """Store this step's groups; forget those that are neither recent nor the best."""
        self.keep(fresh, step)
        self.rows.keep(allowed(self.rows["oldest"], step + 1, self.config))
        self.rows.keep(self._best() | self._recent(step + 1))
        surplus = len(self.rows) - self.config.capacity
        if surplus > 0:  # the best stay longest
            order = np.lexsort((np.arange(len(self.rows)), self._best()))
            self.rows.keep(~np.isin(np.arange(len(self.rows)), order[:surplus]))

    def _best(self) -> Bools:
        return best_of_each(self.rows["prompt"], self.rows["mean"])

    def _recent(self, step: int) -> Bools:
        out: Bools = step - self.rows["made"] <= self.config.window
        return out


def _some(places: Ints, count: int, rng: np.random.Generator) -> Ints:
    """At most `count` of the places, drawn uniformly."""
    return rng.permutation(places)[:count]
