"""Self-imitation: a run's own better responses, stored up and replayed once (SPEAR)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from buffers.replay import fresh_groups
from buffers.rows import Rows
from buffers.selection import add_groups, ages
from buffers.storage import group_from_state, group_state, plain
from rlkit.batch import Group, Sample, Score
from rlkit.interfaces import PartConfig, ReplayBuffer, RunSize, State
from rlkit.registry import register


class SpearConfig(PartConfig):
    """Settings of the store."""

    replay_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of a batch's places that is kept for replayed groups; our choice, SPEAR replays in
    steps of their own."""
    size: Annotated[int, Field(ge=1)] = 2048
    """Responses; replay begins when more than 1.5 times as many are stored."""
    threshold: float = 0.0
    """A response is stored if its mean advantage is above this. 0 in SPEAR's code, whatever its
    `trajectory_score_threshold` says (1): nothing reads it."""
    min_calls: Annotated[int, Field(ge=0)] = 0
    """Fewest tool calls of a response that is stored: 1 in SPEAR. 0 = text tasks too."""
    max_age: Annotated[int, Field(ge=1)] = 10
    """Responses sampled by weights more than this many steps back are forgotten. SPEAR: at most 10,
    5 in its scripts."""


CALLS = "calls"
"""The count of an episode that says how often it called tools; failed calls are calls too."""
FULL = 1.5
"""Replay begins when the stored responses are this many times `size`, as in SPEAR's code."""


@register("buffer", "spear")
class Spear(ReplayBuffer[SpearConfig]):
    """Stores responses of an advantage above a threshold; enough of them are all replayed once.

    The responses of a prompt that were good stay together as a group. When more than 1.5 `size`
    responses are stored, they are handed out over the next steps, the oldest first, and the store
    fills anew. Source: SPEAR (arXiv:2509.22601). Status: adapted. SPEAR asks for a tool
    call too, which is `min_calls=1` here, since text tasks have none; and replays in optimizer
    steps of their own after the fresh ones, a random power of two of what still beats the median,
    where here replayed groups take their places of the batches that follow. Their advantage at
    replay is that of advantage=spear.

    Public code: TencentYoutuResearch/SPEAR, size 2048 (32 in a script for mathematics).
    """

    sources = ("2509.22601",)
    keeps_columns = True

    def __init__(self, config: SpearConfig | None = None) -> None:
        super().__init__(config)
        self.waiting, self.handed = _rows(), _rows()
        """Good responses by group, oldest first; those that are being handed out."""
        self.seen: list[Group] = []
        """This step's fresh groups, until their advantages are known."""

    @property
    def stored(self) -> list[Group]:
        """The groups that wait."""
        return self.waiting.listed("group")

    @property
    def ready(self) -> list[Group]:
        """Those that are being handed out."""
        return self.handed.listed("group")

    def out_of_reach(self, run: RunSize) -> str | None:
        """Replay, if even with every response good the store is never full."""
        c = self.config
        steps = min(c.max_age, run.steps)
        most = steps * self.fresh_share(run.groups) * run.num_generations
        if most > FULL * c.size:
            return None
        return (
            f"replay begins when more than {FULL * c.size:g} responses are stored, and {steps} "
            f"steps generate {most}; set a smaller buffer.size"
        )

    def fresh_share(self, batch: int) -> int:
        """max(1, B - ceil(p B)), also while nothing is handed out."""
        return fresh_groups(batch, self.config.replay_fraction)

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups, and ready ones in the places that are left."""
        self._forget_old(self.handed, step)
        places = batch - self.fresh_share(batch)
        replayed: list[Group] = self.handed["group"][:places].tolist()
        self.handed.keep(np.arange(len(self.handed)) >= places)
        return fresh + replayed

    def add(self, fresh: list[Group], step: int) -> None:
        """Remember this step's groups until `observe` tells their advantages."""
        for group in fresh:
            plain(group.prompt.columns, "")
        self.seen = fresh
        self._forget_old(self.waiting, step + 1)

    def observe(self, scores: Mapping[int, Score]) -> None:
        """Store the responses that are good enough; hand all out when there are enough."""
        good = [
            Group(
                prompt=group.prompt,
                samples=[s for s in group.samples if self._is_good(s, scores.get(s.sample_id))],
            )
            for group in self.seen
        ]
        add_groups(self.waiting, [group for group in good if group.samples])
        self.seen = []
        if not len(self.handed) and _size(self.waiting) > FULL * self.config.size:
            self.handed, self.waiting = self.waiting, _rows()

    def stats(self) -> dict[str, float]:
        """Responses that wait, and those being handed out."""
        return {"stored": float(_size(self.waiting)), "ready": float(_size(self.handed))}

    def clear(self) -> None:
        """Forget every response."""
        self.waiting, self.handed, self.seen = _rows(), _rows(), []

    def __len__(self) -> int:
        return _size(self.waiting) + _size(self.handed)

    def state_dict(self) -> State:
        """The stored and the ready groups."""
        return {
            "stored": [group_state(group) for group in self.stored],
            "ready": [group_state(group) for group in self.ready],
        }

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.clear()
        add_groups(self.waiting, [group_from_state(group) for group in state["stored"]])
        add_groups(self.handed, [group_from_state(group) for group in state["ready"]])

    def _is_good(self, sample: Sample, score: Score | None) -> bool:
        """Whether a response that was trained beats the threshold and has called its tools."""
        c = self.config
        if score is None or score.advantage <= c.threshold:
            return False
        return float(sample.extras.get(CALLS, 0.0)) >= c.min_calls

    def _forget_old(self, rows: Rows, step: int) -> None:
        rows.keep(ages(rows["oldest"], step) <= self.config.max_age)


def _rows() -> Rows:
    """A table of groups, with the oldest weights of each and how many responses it has."""
    return Rows(group=object, oldest=np.int64, responses=np.int64)


def _size(rows: Rows) -> int:
    """Responses in the groups of a table."""
    return int(rows["responses"].sum())
