"""First in, first out: a window over the last steps, as in ReMix (arXiv:2507.06892)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from buffers.rows import Floats, Rows
from buffers.selection import draw_buckets, tiers_of, version_number
from buffers.storage import Stored
from buffers.whole_groups import WholeGroups, WholeGroupsConfig
from rlkit.batch import Group
from rlkit.errors import counted
from rlkit.interfaces import RunSize, State
from rlkit.ops import optimal_shares
from rlkit.registry import register


class FifoConfig(WholeGroupsConfig):
    """Settings of the window and of the mixture."""

    window: Annotated[int, Field(ge=1)] = 2
    """How many earlier training steps stay replayable."""
    replay_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of a batch that is replayed; the rest is generated. ReMix sweeps 0.1 to 0.5."""
    age_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """Relative weight of each age in steps, 1 to window; null = by `age_law`. ReMix draws the age
    from a distribution nu that it does not print."""
    age_law: Literal["uniform", "geometric", "linear", "optimal"] = "uniform"
    """How the weight falls with the age i: not at all, as (1 - age_decay)^(i - 1), as
    max(0, 1 - age_decay (i - 1)), or as GePPO's optimal shares of window + 1 policies
    (arXiv:2111.00072), of which the first, nu_0, is that of the fresh groups: replay_fraction =
    1 - nu_0 belongs to it."""
    age_decay: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the weight that is lost from age 1 to age 2, if the law is geometric or linear; 0 =
    uniform."""
    batch_multiple: Annotated[float, Field(ge=1)] = 2.0
    """B of age_law=optimal: the mixed batch counts as at least this many fresh ones, and its mean
    place, fresh = 1, is at most this."""
    kappa: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Trade-off of age_law=optimal: 1 seeks the largest effective sample size, 0 the largest
    update."""

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

    @model_validator(mode="after")
    def _optimal_shares_exist(self) -> Self:
        if self.age_law != "optimal":
            return self
        multiple, policies = self.batch_multiple, self.window + 1
        if policies < multiple:
            raise ValueError(
                f"window={self.window} must be at least batch_multiple - 1 = {multiple - 1}: "
                "fewer policies do not give that many batches"
            )
        if sum(age_shares(self)) == 0:
            raise ValueError(
                f"age_law=optimal with batch_multiple={multiple} leaves the stored ages no "
                "weight; raise batch_multiple"
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
    if config.age_law == "optimal":
        return optimal_shares(config.window + 1, config.batch_multiple, config.kappa)[1:]
    return (1.0,) * config.window


@register("buffer", "fifo")
class Fifo(WholeGroups[FifoConfig]):
    """Replays whole groups of the last `window` steps.

    Each replayed group draws an age i ~ nu among the ages that have groups left, then one of their
    groups uniformly, without replacement inside a step. Whole groups, because a group's statistics
    belong to the responses it was sampled with; ReMix does not say how it samples. Behavior
    log-probs are stored and never recomputed. `max_age` differs from the window if the engine's
    weights lag.

    Status: adapted; ReMix prints neither nu nor what is drawn.
    """

    sources = ("2507.06892",)
    keeps_columns = True

    def __init__(self, config: FifoConfig | None = None) -> None:
        super().__init__(config)
        self.rows = Rows(stored=object, step=np.int64, oldest=np.int64, responses=np.int64)
        """The stored groups, oldest first: each with its numbers, the step it belongs to, the
        oldest weights that sampled a token of it, or NO_TOKEN, and how many responses it has."""
        self.weighed: tuple[FifoConfig, Floats] | None = None
        """The config whose weights of the ages were computed last, and those."""

    def out_of_reach(self, run: RunSize) -> str | None:
        """A share of replay that the window cannot fill."""
        fresh = self.fresh_share(run.groups)
        places, held = run.groups - fresh, self.config.window * fresh
        if places <= held:
            return None
        return (
            f"a window of {counted(self.config.window, 'step')} of {counted(fresh, 'fresh group')} "
            f"holds {held}, and {places} places of a step are for replay; set a larger "
            "buffer.window or a smaller buffer.replay_fraction"
        )

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups and at most as many replayed ones as the batch has places left."""
        drawn = self._draw(batch - self.fresh_share(batch), step)
        return fresh + [self.rows["stored"][place].group for place in drawn]

    def add(self, fresh: list[Group], step: int) -> None:
        """Store this step's groups and forget what the next step cannot replay.

        Raises UserError when a prompt's columns are no plain values, which no checkpoint could
        keep.
        """
        self._store(self.storage.put(fresh, self.rows["stored"]))
        self.rows.keep(self.rows["step"] > step - self.config.window)

    def stats(self) -> dict[str, float]:
        """Stored groups."""
        return {"groups": float(len(self.rows))}

    def clear(self) -> None:
        """Forget every group."""
        self.rows.clear()
        self.storage.clear()

    def __len__(self) -> int:
        return int(self.rows["responses"].sum())

    def state_dict(self) -> State:
        """The stored groups."""
        return self.storage.state_dict(self.rows.listed("stored"))

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave.

        Raises UserError when a file it names is missing or changed.
        """
        self.rows.clear()
        self._store(self.storage.load_state_dict(state))

    def _store(self, items: Sequence[Stored]) -> None:
        self.rows.add(
            len(items),
            stored=items,
            step=[item.step for item in items],
            oldest=[version_number(item.oldest_version) for item in items],
            responses=[len(item.sample_ids) for item in items],
        )

    def _draw(self, count: int, step: int) -> list[int]:
        """Places of at most `count` groups of ages 1 to window; over age last, or not at all."""
        weights, age = self._weights(), step - self.rows["step"]
        in_window = (age >= 1) & (age <= len(weights))
        rng, drawn = self.rng(step), list[int]()
        for tier in tiers_of(self.rows["oldest"], step, self.config):
            places = tier[in_window[tier]]
            found = draw_buckets(rng, age[places] - 1, weights, count - len(drawn))
            drawn += places[found].tolist()
        return drawn

    def _weights(self) -> Floats:
        """`age_shares`, [window], computed once for a config."""
        if self.weighed is None or self.weighed[0] is not self.config:
            self.weighed = self.config, np.array(age_shares(self.config))
        return self.weighed[1]
