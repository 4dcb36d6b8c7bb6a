"""Self-imitation: a run's own better responses, stored up and replayed once (SPEAR)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from buffers.replay import fresh_groups, staleness
from buffers.storage import group_from_state, group_state, plain
from rlkit.batch import Group, Score
from rlkit.interfaces import PartConfig, ReplayBuffer, State
from rlkit.registry import register


class SpearConfig(PartConfig):
    """Settings of the store."""

    replay_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of a batch's places that is kept for replayed groups; our choice, SPEAR replays in
    steps of their own."""
    size: Annotated[int, Field(ge=1)] = 2048
    """Responses; replay begins when more than 1.5 times as many are stored."""
    max_age: Annotated[int, Field(ge=1)] = 10
    """Responses sampled by weights more than this many steps back are forgotten. SPEAR: at most 10,
    5 in its scripts."""


FULL = 1.5
"""Replay begins when the stored responses are this many times `size`, as in SPEAR's code."""


@register("buffer", "spear")
class Spear(ReplayBuffer[SpearConfig]):
    """Stores responses with a positive advantage; when enough are there, all are replayed once.

    The responses of a prompt that were good stay together as a group. When more than 1.5 `size`
    responses are stored, they are handed out over the next steps, the oldest first, and the store
    fills anew. Source: SPEAR (arXiv:2509.22601). Status: adapted. SPEAR asks for a tool call too,
    which text tasks do not have, and replays in optimizer steps of their own after the fresh ones;
    here replayed groups take their places of the batches that follow. Their advantage at replay is
    that of advantage=spear.

    Public code: TencentYoutuResearch/SPEAR, size 2048 (32 in a script for mathematics).
    """

    sources = ("2509.22601",)
    keeps_columns = True

    def __init__(self, config: SpearConfig | None = None) -> None:
        super().__init__(config)
        self.stored: list[Group] = []
        """Good responses by group, oldest first."""
        self.ready: list[Group] = []
        """Those that are being handed out."""
        self.seen: list[Group] = []
        """This step's fresh groups, until their advantages are known."""

    def fresh_share(self, batch: int) -> int:
        """max(1, B - ceil(p B)), also while nothing is handed out."""
        return fresh_groups(batch, self.config.replay_fraction)

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups, and ready ones in the places that are left."""
        self.ready = self._young(self.ready, step)
        places = batch - self.fresh_share(batch)
        replayed, self.ready = self.ready[:places], self.ready[places:]
        return fresh + replayed

    def add(self, fresh: list[Group], step: int) -> None:
        """Remember this step's groups until `observe` tells their advantages."""
        for group in fresh:
            plain(group.prompt.columns, "")
        self.seen = fresh
        self.stored = self._young(self.stored, step + 1)

    def observe(self, scores: Mapping[int, Score]) -> None:
        """Store the responses with a positive advantage; hand all out when there are enough."""
        for group in self.seen:
            good = [
                s
                for s in group.samples
                if s.sample_id in scores and scores[s.sample_id].advantage > 0
            ]
            if good:
                self.stored.append(Group(prompt=group.prompt, samples=good))
        self.seen = []
        if not self.ready and size_of(self.stored) > FULL * self.config.size:
            self.ready, self.stored = self.stored, []

    def stats(self) -> dict[str, float]:
        """Responses that wait, and those being handed out."""
        return {"stored": float(size_of(self.stored)), "ready": float(size_of(self.ready))}

    def clear(self) -> None:
        """Forget every response."""
        self.stored, self.ready, self.seen = [], [], []

    def __len__(self) -> int:
        return size_of(self.stored) + size_of(self.ready)

    def state_dict(self) -> State:
        """The stored and the ready groups."""
        return {
            "stored": [group_state(group) for group in self.stored],
            "ready": [group_state(group) for group in self.ready],
        }

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.clear()
        self.stored = [group_from_state(group) for group in state["stored"]]
        self.ready = [group_from_state(group) for group in state["ready"]]

    def _young(self, groups: list[Group], step: int) -> list[Group]:
        return [group for group in groups if staleness(group, step) <= self.config.max_age]


def size_of(groups: list[Group]) -> int:
    """Responses in groups."""
    return sum(len(group.samples) for group in groups)
