"""Held to several references at once, in constant or scheduled shares.

    beta sum_name share_name KL(pi || pi_name)        share_name = weight_name / sum of the weights

over the base, the policy of one step ago and the moving average of the weights: a convex
combination of KLs, not the KL to a mixture. ReMix (arXiv:2507.06892) combines the first two by a
staircase, which is `kl_convex`. Status: our choice.

Public code: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from anchors.average import AveragingAnchor
from anchors.base import BASE
from anchors.previous import PREVIOUS
from rlkit.interfaces import AnchorConfig, FreezablePolicy, Reference
from rlkit.registry import register

EMA = "ema"


class ConvexConfig(AnchorConfig):
    """Weights of the references; only their proportions count."""

    base: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the base, which stands also without weight."""
    previous: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the policy of one step ago (pi_{k-1}); 0 = no copy of it."""
    ema: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the moving average of the weights; 0 = no copy of it."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of the average that stays at each step."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.base + self.previous + self.ema == 0:
            raise ValueError("base, previous and ema are all 0; give one of them a weight")
        return self


@register("anchor", "convex")
class Convex(AveragingAnchor[ConvexConfig]):
    """beta sum_name share_name KL_name, over base, previous and ema.

    The previous policy is pi_k if no copy is held (the first step, and the one after it gets a
    weight). The average starts at the base.
    """

    sources = ("2507.06892",)

    @property
    def averages_weights(self) -> bool:
        """Whether the moving average has a weight."""
        return self.config.ema > 0

    def weights(self, step: int) -> Mapping[str, float]:
        """The shares; the base's may be 0."""
        c = self.config
        total = c.base + c.previous + c.ema
        shares = {BASE: c.base / total, PREVIOUS: c.previous / total, EMA: c.ema / total}
        return {name: share for name, share in shares.items() if share or name == BASE}

    def reference(self, name: str) -> Reference | None:
        """The frozen policy of that name; None for a previous one that is the step's own start."""
        if name == PREVIOUS:
            return self.frozen.get(PREVIOUS)
        if name == EMA:
            return self.frozen.get(EMA, self.frozen[BASE])
        return super().reference(name)

    def number(self, name: str) -> int | None:
        """The base's; the others move."""
        return self.rebases if name == BASE else None

    def before_step(self, policy: FreezablePolicy, step: int) -> None:
        """Keep the weights the step starts from, if something reads them in the next."""
        self.frozen.pop(PREVIOUS, None)
        if self.config.previous and self.is_read(PREVIOUS):
            self.frozen[PREVIOUS] = policy.freeze()

    def move(self, policy: FreezablePolicy) -> None:
        """Take the policy into the average, or drop an average that lost its weight."""
        if self.config.ema:
            self.follow(policy, EMA, 1 - self.config.decay)
        else:
            self.frozen.pop(EMA, None)
            self.means.pop(EMA, None)

    def rebase(self, policy: FreezablePolicy) -> None:
        """Make the current policy the base and the average's start; the previous one stays."""
        previous = self.frozen.get(PREVIOUS)
        super().rebase(policy)
        if previous is not None:
            self.frozen[PREVIOUS] = previous
