"""First in, first out: a window over the last steps, as in ReMix (arXiv:2507.06892)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field, model_validator

from buffers.storage import group_from_state, group_state, plain
from rlkit.batch import Group
from rlkit.interfaces import PartConfig, ReplayBuffer, State
from rlkit.registry import register


class FifoConfig(PartConfig):
    """Settings of the window and of the mixture."""

    window: Annotated[int, Field(ge=1)] = 2
    """How many earlier training steps stay replayable."""
    replay_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of a batch that is replayed; the rest is generated. ReMix sweeps 0.1 to 0.5."""
    age_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """Relative weight of each age in steps, 1 to window; null = uniform. ReMix draws the age from a
    distribution nu that it does not print."""

    @model_validator(mode="after")
    def _one_weight_an_age(self) -> Self:
        weights = self.age_weights
        if weights is not None and (len(weights) != self.window or sum(weights) == 0):
            raise ValueError(
                f"age_weights={list(weights)} needs one weight for each of the {self.window} ages "
                "of the window, not all zero"
            )
        return self


def step_of(group: Group) -> int:
    """The training step a group belongs to: that of its newest response."""
    return max(sample.step for sample in group.samples)


@register("buffer", "fifo")
class Fifo(ReplayBuffer[FifoConfig]):
    """Replays whole groups of the last `window` steps.

    Each replayed group draws an age i ~ nu among the ages that have groups left, then one of their
    groups uniformly, without replacement inside a step. Whole groups, because a group's statistics
    belong to the responses it was sampled with; ReMix does not say how it samples. Behaviour
    log-probs are stored and never recomputed.
    """

    Config = FifoConfig

    def __init__(self, config: FifoConfig | None = None) -> None:
        super().__init__(config)
        self.stored: dict[int, list[Group]] = {}
        """Step -> its groups."""

    def fresh_share(self, batch: int) -> int:
        """max(1, B - ceil(p B)), also while the buffer is empty; 1e-9 is for decimal rounding."""
        return max(1, batch - math.ceil(self.config.replay_fraction * batch - 1e-9))

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups and at most as many replayed ones as the batch has places left."""
        return fresh + self._draw(batch - self.fresh_share(batch), step)

    def add(self, fresh: list[Group], step: int) -> None:
        """Store this step's groups and forget what the next step cannot replay.

        Raises UserError when a prompt's columns are no plain values, which no checkpoint could
        keep.
        """
        for group in fresh:
            plain(group.prompt.columns, "")
        self._store(fresh)
        self.stored = {k: v for k, v in self.stored.items() if k > step - self.config.window}

    def stats(self) -> dict[str, float]:
        """Stored groups."""
        return {"groups": float(sum(map(len, self.stored.values())))}

    def clear(self) -> None:
        """Forget every group."""
        self.stored = {}

    def __len__(self) -> int:
        return sum(len(group.samples) for groups in self.stored.values() for group in groups)

    def state_dict(self) -> State:
        """The stored groups."""
        return {"groups": [group_state(g) for groups in self.stored.values() for g in groups]}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.stored = {}
        self._store(group_from_state(group) for group in state["groups"])

    def _store(self, groups: Iterable[Group]) -> None:
        for group in groups:
            self.stored.setdefault(step_of(group), []).append(group)

    def _draw(self, count: int, step: int) -> list[Group]:
        """At most `count` groups of ages 1 to window."""
        weights = self.config.age_weights or (1.0,) * self.config.window
        left = {
            age: list(self.stored[step - age])
            for age, weight in enumerate(weights, start=1)
            if weight > 0 and self.stored.get(step - age)
        }
        rng = self.rng(step)
        drawn: list[Group] = []
        while left and len(drawn) < count:
            ages = list(left)
            total = sum(weights[age - 1] for age in ages)
            age = ages[rng.choice(len(ages), p=[weights[age - 1] / total for age in ages])]
            drawn.append(left[age].pop(rng.integers(len(left[age]))))
            if not left[age]:
                del left[age]
        return drawn
