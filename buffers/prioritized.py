"""Prioritized replay: groups that still teach much are replayed more often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from buffers.replay import Entry, Stock, StockConfig
from rlkit.batch import Group, Score
from rlkit.registry import register

Floats = npt.NDArray[np.float64]


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


def group_priorities(entries: Sequence[Entry], config: PrioritizedConfig) -> Floats:
    """The priority of each entry, at least 0.

    An entry that no step has scored yet gets the largest of the others, 1 if there is none.
    """
    reduce = max if config.reduction == "max" else _mean
    if config.priority == "reward":
        reward = np.array([reduce(e.rewards) for e in entries])
        spread = np.ptp(reward)
        return (reward - reward.min()) / spread if spread > 0 else np.zeros(len(entries))
    size = abs if config.priority == "advantage" else _positive
    seen = np.array(
        [reduce([size(a) for a in e.advantage]) if e.advantage else np.nan for e in entries]
    )
    known = seen[~np.isnan(seen)]
    priorities: Floats = np.nan_to_num(seen, nan=known.max() if len(known) else 1.0)
    return priorities


def draw_probabilities(priority: Floats, config: PrioritizedConfig) -> Floats:
    """P_i = w_i / sum w, w = (priority + epsilon)^alpha or (1 / rank)^alpha.

    Of equal priorities the newer has the better rank.
    """
    if config.scheme == "proportional":
        weight = (priority + config.epsilon) ** config.alpha
    else:
        order = np.lexsort((-np.arange(len(priority)), -priority))
        weight = np.empty(len(priority))
        weight[order] = (1.0 / np.arange(1, len(priority) + 1)) ** config.alpha
    shares: Floats = weight / weight.sum()
    return shares


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _positive(value: float) -> float:
    return max(0.0, value)


@register("buffer", "prioritized")
class Prioritized(Stock[PrioritizedConfig]):
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

    sources = ("2112.03798", "1511.05952")

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups and at most as many replayed ones as the batch has places left."""
        rng, drawn = self.rng(step), list[Entry]()
        for tier in self.tiers(self.entries, step):
            drawn += self._draw(tier, batch - self.fresh_share(batch) - len(drawn), rng)
        return fresh + self.use(drawn, step)

    def observe(self, scores: Mapping[int, Score]) -> None:
        """Remember the advantages of the stored groups that were trained."""
        for entry in self.entries:
            if all(name in scores for name in entry.sample_ids):
                entry.advantage = [scores[name].advantage for name in entry.sample_ids]

    def add(self, fresh: list[Group], step: int) -> None:
        """Store this step's groups; forget what the next step may not replay, then the oldest."""
        self.keep(fresh, step)
        self.entries = self.usable(step + 1)[-self.config.capacity :]

    def _draw(self, entries: list[Entry], count: int, rng: np.random.Generator) -> list[Entry]:
        count = min(count, len(entries))
        if count == 0:
            return []
        chance = draw_probabilities(group_priorities(entries, self.config), self.config)
        drawn = rng.choice(len(entries), size=count, replace=False, p=chance)
        return [entries[i] for i in drawn]
