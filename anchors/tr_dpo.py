"""The base follows the policy every few steps: by a part of the way, or all of it.

    every `every` steps:  base <- alpha theta + (1 - alpha) base

TR-DPO (arXiv:2404.09656): alpha < 1 is its soft update, alpha = 1 its hard one. Status: exact; the
steps are training steps here, since the last rebase, not optimizer steps. A loss that reads
`anchor:base`, as DPO's does, reads the moving base: with beta = 0 that is TR-DPO as printed.

Public code: TRL's `sync_ref_model` with `ref_model_mixup_alpha` 0.6 and `ref_model_sync_steps` 512,
the defaults of `tr_dpo`. `periodic` is a hard copy every so many steps: slime's
`ref_update_interval`. ProRL (arXiv:2505.24864) resets by hand when validation stagnates, 8 times in
about 2,500 steps, and re-initializes the optimizer too, which is a schedule's event here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from anchors.average import AveragingAnchor
from anchors.base import BASE
from rlkit.interfaces import AnchorConfig, FreezablePolicy, RunSize
from rlkit.registry import register, variant


class TrDpoConfig(AnchorConfig):
    """Settings of the update."""

    alpha: Annotated[float, Field(gt=0, le=1)] = 0.6
    """How far the base moves to the policy at each update; 1 = it becomes the policy."""
    every: Annotated[int, Field(ge=1)] = 512
    """Steps between two updates, counted from the last rebase."""


@register("anchor", "tr_dpo")
class TrDpo(AveragingAnchor[TrDpoConfig]):
    """beta KL(pi || base), where base <- alpha theta + (1 - alpha) base every so many steps."""

    sources = ("2404.09656",)

    @property
    def averages_weights(self) -> bool:
        """Whether the base moves a part of the way."""
        return self.config.alpha < 1

    def out_of_reach(self, run: RunSize) -> str | None:
        """The first move of the base."""
        every = self.config.every
        return run.ends_by(
            every, f"the base moves every {every} steps", "set a smaller anchor.every"
        )

    def move(self, policy: FreezablePolicy) -> None:
        """Update the base if it is time."""
        if self.steps % self.config.every == 0:
            self.follow(policy, BASE, self.config.alpha)


periodic = variant(
    "periodic",
    of=TrDpo,
    alpha=1.0,
    every=100,
    doc="beta KL(pi || base), where the policy becomes the base every so many steps.",
)
