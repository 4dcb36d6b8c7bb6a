"""First in, first out: a window over the last steps, as in ReMix (arXiv:2507.06892)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from buffers.replay import draw_buckets, fresh_groups, staleness
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
    """Relative weight of each age in steps, 1 to window; null = by `age_law`. ReMix draws the age
    from a distribution nu that it does not print."""
    age_law: Literal["uniform", "geometric", "linear"] = "uniform"
    """How the weight falls with the age i: not, as (1 - age_decay)^(i - 1), or as
    max(0, 1 - age_decay (i - 1)), the shape of GePPO's optimal shares (arXiv:2111.00072)."""
    age_decay: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the weight that is lost from age 1 to age 2; 0 = uniform."""
    max_age: Annotated[int, Field(ge=1)] | None = None
    """A group is over age when weights of more than this many steps back sampled a token of it;
    null = never. It differs from the window where the engine's weights lag."""
    over_age: Literal["drop", "keep"] = "drop"
    """drop = never replay groups over age; keep = replay them when no younger one is left."""

    @model_validator(mode="after")
    def _one_weight_an_age(self) -> Self:
        weights = self.age_weights
        if weights is not None and (len(weights) != self.window or sum(weights) == 0):
            raise ValueError(
                f"age_weights={list(weights)} needs one weight for each of the {self.window} ages "
                "of the window, not all zero"
            )
        if weights is not None and self.age_law != "uniform":
            raise ValueError(
                f"age_weights={list(weights)} and age_law={self.age_law} both weigh the ages; "
                "set one of them"
            )
        return self


def age_shares(config: FifoConfig) -> tuple[float, ...]:
    """The relative weight of each age, 1 to window."""
    ages, decay = range(config.window), config.age_decay
    if config.age_weights is not None:
        return config.age_weights
    if config.age_law == "geometric":
        return tuple((1 - decay) ** i for i in ages)
    if config.age_law == "linear":
        return tuple(max(0.0, 1 - decay * i) for i in ages)
    return (1.0,) * config.window


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
        """max(1, B - ceil(p B)), also while the buffer is empty."""
        return fresh_groups(batch, self.config.replay_fraction)

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
        """At most `count` groups of ages 1 to window, those over age last or not at all."""
        weights = dict(enumerate(age_shares(self.config), start=1))
        groups = {age: self.stored.get(step - age, []) for age in weights}
        rng, limit = self.rng(step), self.config.max_age
        if limit is None:
            return draw_buckets(rng, groups, weights, count)
        young = {
            age: [group for group in made if staleness(group, step) <= limit]
            for age, made in groups.items()
        }
        drawn = draw_buckets(rng, young, weights, count)
        if self.config.over_age == "keep":
            old = {
                age: [group for group in made if staleness(group, step) > limit]
                for age, made in groups.items()
            }
            drawn += draw_buckets(rng, old, weights, count - len(drawn))
        return drawn
