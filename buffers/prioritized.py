"""Prioritized replay: groups that still teach much are replayed more often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from typing_extensions import TypeVar

from buffers.rows import Floats, Ints
from buffers.selection import among, ranks, tiers_of
from buffers.stock import Stock, StockConfig
from buffers.storage import Stored
from rlkit.batch import Group, Score
from rlkit.registry import register

FLOOR = -50.0
"""A group is at most exp(50) times less likely than the likeliest, so that all can be drawn."""


class PrioritizedConfig(StockConfig):
    """Settings of the priority and of the draw."""

    priority: Literal["advantage", "reward", "positive_gap"] = "advantage"
    """advantage = |A| when last trained; reward = the reward, scaled to 0..1 over the stock;
    positive_gap = max(A, 0), how far a response beat its baseline."""
    reduction: Literal["max", "mean"] = "mean"
    """How the responses of a group become one priority; PTR-PPO takes either over the steps of a
    trajectory, which share one advantage under outcome rewards."""
    scheme: Literal["proportional", "rank"] = "proportional"
    """proportional = (priority + epsilon)^alpha; rank = (1 / rank)^alpha, the largest first."""
    alpha: Annotated[float, Field(ge=0)] = 0.7
    """0 = uniform. The paper prints no value; 0.7 is that of a reconstruction."""
    epsilon: Annotated[float, Field(gt=0)] = 0.01
    """Keeps groups of priority 0 drawable; a reconstruction's value."""


def group_value(values: Sequence[float], config: PrioritizedConfig) -> float:
    """The rewards, or the advantages, of a group's responses as one number; NaN if there are none.

    The largest or the mean of the rewards, of |A| or of max(A, 0).
    """
    if not values:
        return float("nan")
    if config.priority == "advantage":
        values = [abs(value) for value in values]
    elif config.priority == "positive_gap":
        values = [max(0.0, value) for value in values]
    return max(values) if config.reduction == "max" else sum(values) / len(values)


def group_priorities(value: Floats, config: PrioritizedConfig) -> Floats:
    """The priority of each group from its value, at least 0.

    Rewards are scaled to 0..1. A group that no step has scored yet, of value NaN, gets the largest
    of the others, 1 if there is none.
    """
    if config.priority == "reward":
        spread = np.ptp(value)
        return (value - value.min()) / spread if spread > 0 else np.zeros(len(value))
    known = value[~np.isnan(value)]
    priorities: Floats = np.nan_to_num(value, nan=known.max() if len(known) else 1.0)
    return priorities


def draw_probabilities(priority: Floats, config: PrioritizedConfig) -> Floats:
    """P_i = w_i / sum w, w = (priority + epsilon)^alpha or (1 / rank)^alpha.

    Of equal priorities the newer has the better rank.
    """
    if config.scheme == "proportional":
        logits = config.alpha * np.log(priority + config.epsilon)
    else:
        logits = -config.alpha * np.log(np.arange(1, len(priority) + 1))[ranks(priority)]
    return shares_of(logits)


def floored(logits: Floats) -> Floats:
    """Logits less their largest, none below FLOOR."""
    out: Floats = np.maximum(logits - logits.max(), FLOOR)
    return out


def shares_of(logits: Floats) -> Floats:
    """exp(logits) over their sum, none 0; a large alpha neither overflows nor leaves too few."""
    weight = np.exp(floored(logits))
    shares: Floats = weight / weight.sum()
    return shares


P = TypeVar("P", bound=PrioritizedConfig, default=PrioritizedConfig)


@register("buffer", "prioritized")
class Prioritized(Stock[P]):
    """Replays whole groups, each with a probability that grows with its priority.

        P_i proportional to (priority_i + epsilon)^alpha, without replacement inside a step

    Advantages are those of the last step that trained the group, so a replayed group's priority is
    refreshed. The oldest groups leave when `capacity` is reached. The draw is not undone by
    importance weights. Source: PTR-PPO (arXiv:2112.03798) and prioritized experience replay
    (arXiv:1511.05952). Status: adapted. Groups take the place of PTR-PPO's trajectories, the
    formulas follow a reconstruction because the paper's code is not public, and its product of
    ratios as a weight is left to the loss. It is said to replay 8 of 10 updates; the default here
    is fifo's.

    Public code: none by the authors.
    """

    Config = PrioritizedConfig
    sources = ("2112.03798", "1511.05952")

    columns: ClassVar[Mapping[str, type]] = {"value": np.float64}

    def numbers(
        self, stored: Sequence[Stored], advantage: Sequence[Sequence[float]]
    ) -> dict[str, object]:
        """The value of each group, which its priority is made of."""
        by_reward = self.config.priority == "reward"
        found = [item.rewards for item in stored] if by_reward else advantage
        return {"value": [group_value(values, self.config) for values in found]}

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups and at most as many replayed ones as the batch has places left."""
        rng, trained = self.rng(step), list(fresh)
        places = batch - self.fresh_share(batch)
        for tier in tiers_of(self.rows["oldest"], step, self.config):
            count = min(places, len(tier))
            if count > 0:
                chance = self.chances(tier, step)
                drawn = rng.choice(len(tier), size=count, replace=False, p=chance)
                trained += self.replay(tier, drawn, chance, step)
                places -= count
        return trained

    def chances(self, tier: Ints, step: int) -> Floats:
        """The probability of each place of a tier, if one is drawn."""
        priority = group_priorities(self.rows["value"][tier], self.config)
        return draw_probabilities(priority, self.config)

    def replay(self, tier: Ints, drawn: Ints, chance: Floats, step: int) -> list[Group]:
        """The groups drawn from a tier, of which these are the positions, with these chances."""
        return self.use(tier[drawn], step)

    def observe(self, scores: Mapping[int, Score]) -> None:
        """Remember the advantages of the stored groups that were trained."""
        for place in among(self.rows["first"], scores).tolist():
            item: Stored = self.rows["stored"].item(place)
            if all(name in scores for name in item.sample_ids):
                advantage = [scores[name].advantage for name in item.sample_ids]
                self.rows["advantage"][place] = advantage
                if self.config.priority != "reward":
                    self.rows["value"][place] = group_value(advantage, self.config)

    def add(self, fresh: list[Group], step: int) -> None:
        """Store this step's groups; forget what the next step may not replay, then the oldest."""
        self.keep(fresh, step)
        self.evict(step + 1)
