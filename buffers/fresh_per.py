"""Prioritized replay whose priorities fade with age (FreshPER)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from buffers.prioritized import Prioritized, PrioritizedConfig, group_priorities
from buffers.rows import Floats, Ints
from buffers.selection import ages
from rlkit.batch import REPLAY_WEIGHT, Group
from rlkit.registry import register


class FreshPERConfig(PrioritizedConfig):
    """Settings of the priority, its fading and the importance weights."""

    capacity: Annotated[int, Field(ge=1)] = 50_000
    tau: Annotated[float, Field(gt=0)] = 500.0
    """Training steps over which a priority falls to 1/e. The paper counts gradient steps: 500, and
    1,000 for FrozenLake."""
    alpha: Annotated[float, Field(ge=0)] = 0.6
    """0 = uniform."""
    beta: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Exponent of the importance weights at the first step; 0 = none, 1 = the draw is undone."""
    beta_steps: Annotated[int, Field(ge=1)] = 1000
    """Training steps until the exponent has risen to 1, linearly; unconfirmed."""


def faded(priority: Floats, age: Ints, tau: float) -> Floats:
    """priority * exp(-age / tau); age in steps."""
    out: Floats = priority * np.exp(-age / tau)
    return out


def importance_exponent(step: int, first: float, steps: int) -> float:
    """The exponent at a training step, from `first` at step 1 to 1 at step 1 + steps."""
    return first + (1 - first) * min(1.0, (step - 1) / steps)


def importance_weights(probability: Floats, beta: float) -> Floats:
    """(1 / (N P_i))^beta over the largest of them, [N]; P_i is the chance of a group."""
    weights = (len(probability) * probability) ** -beta
    out: Floats = weights / weights.max()
    return out


@register("buffer", "fresh_per")
class FreshPER(Prioritized):
    """Replays groups by priority, which fades as the policy moves on.

        P_i proportional to ((priority_i + epsilon) exp(-age_i / tau))^alpha
        w_i = (N P_i)^-beta / max_j w_j

    w_i goes with each replayed response; correction=replay_weight multiplies its loss by it. Age is
    in training steps, from the oldest weights that sampled a token. The stored priorities are those
    of `prioritized`: |A| when last trained, or the reward. Source: arXiv:2604.18916, after
    prioritized experience replay (arXiv:1511.05952). Status: adapted. Its units are trajectories,
    here groups; it replays in batches beside the fresh one, here in a share of the batch.

    Public code: Vision-CAIR/Freshness-Aware-PER, read as a README.
    """

    Config = FreshPERConfig
    config: FreshPERConfig
    sources = ("2604.18916", "1511.05952")

    def __init__(self, config: FreshPERConfig | None = None) -> None:
        super().__init__(config)
        self.step = 1
        self.drawn: dict[int, float] = {}
        """The importance weights of the groups that this step draws, by their first response."""

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups, and replayed ones with their importance weights."""
        self.step, self.drawn = step, {}
        trained = super().build(fresh, batch, step)
        for group in trained[len(fresh) :]:
            weight = self.drawn[group.samples[0].sample_id]
            for sample in group.samples:
                sample.extras[REPLAY_WEIGHT] = weight
        return trained

    def _draw(self, tier: Ints, count: int, rng: np.random.Generator) -> Ints:
        c, count = self.config, min(count, len(tier))
        if count == 0:
            return tier[:0]
        priority = group_priorities(self.rows["value"][tier], c) + c.epsilon
        age = ages(self.rows["oldest"][tier], self.step)
        weight = faded(priority, age, c.tau) ** c.alpha
        chance: Floats = weight / weight.sum()
        places = rng.choice(len(tier), size=count, replace=False, p=chance)
        undone = importance_weights(chance, importance_exponent(self.step, c.beta, c.beta_steps))
        first = self.rows["first"][tier]
        self.drawn |= zip(first[places].tolist(), undone[places].tolist(), strict=True)
        return tier[places]
