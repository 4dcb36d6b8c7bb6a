"""Prioritized replay whose priorities fade with age (FreshPER)."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from buffers.prioritized import (
    Prioritized,
    PrioritizedConfig,
    floored,
    group_priorities,
    shares_of,
)
from buffers.rows import Floats, Ints
from buffers.selection import ages
from rlkit.batch import REPLAY_WEIGHT, Group
from rlkit.registry import register


class FreshPERConfig(PrioritizedConfig):
    """Settings of the priority, its fading and the importance weights."""

    capacity: Annotated[int, Field(ge=1)] = 50_000
    tau: Annotated[float, Field(gt=0)] = 125.0
    """Training steps over which a priority falls to 1/e. The paper counts gradient steps, 500, and
    1,000 for FrozenLake: this is 500 at 4 optimizer steps per training step."""
    alpha: Annotated[float, Field(ge=0)] = 0.6
    """0 = uniform."""
    beta: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Exponent of the importance weights at the first step; 0 = none, 1 = the draw is undone."""
    beta_steps: Annotated[int, Field(ge=1)] = 1000
    """Training steps until the exponent has risen to 1, linearly; unconfirmed."""

    @model_validator(mode="after")
    def _proportional(self) -> Self:
        if self.scheme != "proportional":
            raise ValueError("scheme=rank is of buffer=prioritized; fresh_per draws proportionally")
        return self


def draw_logits(priority: Floats, age: Ints, tau: float, alpha: float) -> Floats:
    """log of (priority * exp(-age / tau))^alpha, the largest 0 and none below FLOOR; age: steps."""
    return floored(alpha * (np.log(priority) - age / tau))


def importance_exponent(step: int, first: float, steps: int) -> float:
    """The exponent at a training step, from `first` at step 1 to 1 at step 1 + steps."""
    return first + (1 - first) * min(1.0, (step - 1) / steps)


def importance_weights(chance: Floats, beta: float) -> Floats:
    """(1 / P_i)^beta over the largest of them, [drawn], from the P_i of what was drawn."""
    out: Floats = (chance / chance.min(initial=1.0)) ** -beta
    return out


@register("buffer", "fresh_per")
class FreshPER(Prioritized[FreshPERConfig]):
    """Replays groups by priority, which fades as the policy moves on.

        P_i proportional to ((priority_i + epsilon) exp(-age_i / tau))^alpha
        w_i = (N P_i)^-beta / max_j w_j

    w_i goes with each replayed response; correction=replay_weight multiplies its loss by it. j goes
    over the groups that were drawn with it (our choice: over the whole store, one group that is
    hardly ever drawn would make all others count for little beside the fresh ones, whose weight is
    1). Age is in training steps, from the oldest weights that sampled a token. The stored
    priorities are those of `prioritized`: |A| when last trained, or the reward. Source:
    arXiv:2604.18916, after prioritized experience replay (arXiv:1511.05952). Status: adapted. Its
    units are trajectories, here groups; it replays in batches beside the fresh one, here in a share
    of the batch.

    Public code: Vision-CAIR/Freshness-Aware-PER, read as a README.
    """

    Config = FreshPERConfig
    sources = ("2604.18916", "1511.05952")

    def chances(self, tier: Ints, step: int) -> Floats:
        """The probability of each place of a tier, if one is drawn."""
        c = self.config
        priority = group_priorities(self.rows["value"][tier], c) + c.epsilon
        age = ages(self.rows["oldest"][tier], step)
        return shares_of(draw_logits(priority, age, c.tau, c.alpha))

    def replay(self, tier: Ints, drawn: Ints, chance: Floats, step: int) -> list[Group]:
        """The groups drawn from a tier, with their importance weights."""
        c = self.config
        exponent = importance_exponent(step, c.beta, c.beta_steps)
        undone = importance_weights(chance[drawn], exponent)
        groups = super().replay(tier, drawn, chance, step)
        for group, weight in zip(groups, undone.tolist(), strict=True):
            for sample in group.samples:
                sample.extras[REPLAY_WEIGHT] = weight
        return groups
