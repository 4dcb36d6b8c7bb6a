"""KL-Convex: held to the base and, more and more, to the policy of one step ago.

From ReMix (arXiv:2507.06892), which prints lambda(t) but neither beta nor the KL estimator. Status:
exact for the weights; beta and the estimators are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from anchors.base import BASE, BaseAnchor
from anchors.previous import PREVIOUS
from rlkit.interfaces import AnchorConfig, FreezablePolicy, Reference
from rlkit.ops import DIGITS, staircase
from rlkit.registry import register


class KLConvexConfig(AnchorConfig):
    """Settings of the mixture."""

    start: Annotated[int, Field(ge=0)] = 50
    """Last step at which the whole weight is on the base."""
    interval: Annotated[int, Field(ge=1)] = 10
    """Steps between two falls of the base's share."""
    decrement: Annotated[float, Field(ge=0, le=1)] = 0.1
    """How much of the weight moves to the previous policy at each fall."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Lowest share of the base."""
    previous_at: Literal["previous_step", "this_step"] = "previous_step"
    """Where the previous policy's weights are taken: at the start of the previous step (pi_{k-1},
    as the paper's formula has it) or of this one (pi_k, one reading of the paper's words)."""


@register("anchor", "kl_convex")
class KLConvex(BaseAnchor[KLConvexConfig]):
    """beta (lambda KL(pi || pi_base) + (1 - lambda) KL(pi || pi_{k-1})), a combination of two KLs.

    pi_{k-1} is the base in the first step, and whenever the step before kept no copy.
    """

    sources = ("2507.06892",)

    def weights(self, step: int) -> Mapping[str, float]:
        """lambda(step) on the base, the rest on the previous policy.

        lambda(t) = max(1 - decrement ceil(max(t - start, 0) / interval), floor)
        """
        c = self.config
        share = staircase(step, c.start, c.interval, c.decrement, c.floor)
        return {BASE: share, PREVIOUS: round(1 - share, DIGITS)}

    def is_read(self, name: str) -> bool:
        """Whether something reads the reference; the base may stand for the previous policy."""
        return super().is_read(name) or (name == BASE and super().is_read(PREVIOUS))

    def reference(self, name: str) -> Reference | None:
        """The frozen policy of that name; None for a previous one that is the step's own start."""
        if name == PREVIOUS and self.config.previous_at == "this_step":
            return None
        if name == PREVIOUS:
            return self.frozen.get(PREVIOUS, self.frozen[BASE])
        return super().reference(name)

    def before_step(self, policy: FreezablePolicy, step: int) -> None:
        """Keep the weights the step starts from, if something reads them in the next."""
        self.frozen.pop(PREVIOUS, None)
        wanted = self.weights(step + 1)[PREVIOUS] != 0 and self.is_read(PREVIOUS)
        if wanted and self.config.previous_at == "previous_step":
            self.frozen[PREVIOUS] = policy.freeze()
