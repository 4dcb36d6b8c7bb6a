"""Held to the policy of one step ago.

    beta KL(pi || pi_{k-1})

pi_k is the policy step k starts from. The second half of ReMix's KL-Convex (arXiv:2507.06892) on
its own, a trust region that moves with the policy and never pulls it back to where it began.
Status: our choice of a special case; the estimator is a field of every anchor.

Public code: none under this name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from anchors.base import BaseAnchor
from rlkit.interfaces import AnchorConfig, FreezablePolicy, Reference
from rlkit.registry import register

PREVIOUS = "previous"


class PreviousConfig(AnchorConfig):
    """Settings of the previous policy."""

    previous_at: Literal["previous_step", "this_step"] = "previous_step"
    """Where its weights are taken: at the start of the previous step (pi_{k-1}) or of this one
    (pi_k, which needs no copy)."""


@register("anchor", "previous")
class Previous(BaseAnchor[PreviousConfig]):
    """beta KL(pi || pi_{k-1}), with one copy.

    If no copy is held (the first step, and the one after a step whose copy nothing read) the
    reference is pi_k. A rebirth changes nothing: there is no base.
    """

    sources = ("2507.06892",)

    def weights(self, step: int) -> Mapping[str, float]:
        """All on the previous policy."""
        return {PREVIOUS: 1.0}

    def reference(self, name: str) -> Reference | None:
        """The frozen policy; None if it is the step's own start."""
        if name != PREVIOUS:
            raise KeyError(name)
        return self.frozen.get(PREVIOUS)

    def before_step(self, policy: FreezablePolicy, step: int) -> None:
        """Keep the weights the step starts from, if something reads them in the next."""
        self.frozen.pop(PREVIOUS, None)
        if self.config.previous_at == "previous_step" and self.is_read(PREVIOUS):
            self.frozen[PREVIOUS] = policy.freeze()

    def rebase(self, policy: FreezablePolicy) -> None:
        """Nothing to move."""
