"""SPEAR's advantages: replayed responses against the median of what the run earns now."""

from __future__ import annotations

from collections import deque
from typing import Annotated

import torch
from pydantic import Field

from algorithms.advantages.group_norm import GroupNormConfig, Spread, group_advantage
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, State
from rlkit.ops import over_tokens
from rlkit.registry import register


class SpearConfig(GroupNormConfig):
    """Settings of the running baseline. New responses are centred on their group's mean."""

    std: Spread = "none"
    history: Annotated[int, Field(ge=1)] = 10_240
    """Means of groups that the baseline remembers."""
    quantile: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Which quantile of them the baseline is."""


@register("advantage", "spear")
class Spear(AdvantageEstimator[SpearConfig]):
    """New responses: A = R - mean(R_group). Replayed ones: A = max(R - P50(means of groups), 0).

    What was good when it was sampled may be ordinary now: only responses that still beat the median
    of the last groups' mean rewards teach anything. What comes from a buffer's store is replayed,
    new responses of lagging weights are not; the means are those of new groups, this step's
    included. Source: arXiv:2509.22601.

    Public code: TencentYoutuResearch/SPEAR, a history of 10,240 means. Its alternative, the stored
    advantage times a constant, is not offered.
    """

    sources = ("2509.22601",)
    min_group = 2

    def __init__(self, config: SpearConfig | None = None) -> None:
        super().__init__(config)
        self.means: deque[float] = deque()
        """Mean rewards of groups, oldest first."""

    @property
    def divides_by_spread(self) -> bool:
        """By the settings."""
        return self.config.std == "group"

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages [B, T]; the returns are the rewards."""
        c = self.config
        self._remember(b)
        new = group_advantage(
            b.reward, b.group, std=c.std, unbiased=c.unbiased, eps=c.eps, singleton=c.singleton
        )
        baseline = self._baseline()
        old = (b.reward - baseline).clamp(min=0)
        advantage = torch.where(b.replayed, old, new)
        return AdvantageOutput(
            advantage=over_tokens(advantage, b.mask),
            returns=over_tokens(b.reward, b.mask),
            metrics={"advantage/baseline": baseline},
        )

    def _remember(self, b: AdvantageBatch) -> None:
        new = ~b.replayed
        for group in sorted(set(b.group[new].tolist())):
            rewards = b.reward[new & (b.group == group)].double()
            first = rewards[0]  # without rounding if all are equal
            self.means.append(float(first + (rewards - first).mean()))
        while len(self.means) > self.config.history:
            self.means.popleft()

    def _baseline(self) -> float:
        if not self.means:
            return 0.0
        kept = torch.tensor(list(self.means), dtype=torch.float64)
        return float(kept.quantile(self.config.quantile))

    def state_dict(self) -> State:
        """The remembered means."""
        return {"means": list(self.means)}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self.means = deque(state["means"])
