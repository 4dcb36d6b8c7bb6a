"""Policy reincarnation of ReMix (arXiv:2507.06892): a mixed first life, an on-policy second."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlkit.interfaces import Event, PartConfig, Phase, Progress, ReincarnationSchedule, RunSize
from rlkit.registry import register
from schedules.events import fired


class ReincarnateConfig(PartConfig):
    """Settings of the single switch. What it resets besides the base, ReMix does not say."""

    at: Annotated[int, Field(ge=1)] = 50
    """T, the last step of the mixed phase (arXiv:2507.06892: 50 or 100 for ReMix-PPO, 50 for
    ReMix-GRPO)."""
    clear_buffer: bool = True
    """Whether the stored responses are forgotten. They are not replayed again either way."""
    reset_optimizer: bool = False
    """Whether the optimizer's moments are forgotten."""
    updates_after: Annotated[int, Field(ge=1)] | None = 1
    """Passes over each batch after the switch, which the paper's on-policy objective implies to be
    1; null = train.updates_per_batch."""


@register("schedule", "reincarnate")
class Reincarnate(ReincarnationSchedule[ReincarnateConfig]):
    """Steps 1 to T mix fresh and replayed data; then the policy is its own base, without replay.

    With fresh data alone the mix-policy loss is PPO's, so the loss need not change.

    Source: ReMix (arXiv:2507.06892). Status: exact for the switch; what is reset besides the base
    and the passes after it are our reading.
    """

    sources = ("2507.06892",)

    def out_of_reach(self, run: RunSize) -> str | None:
        """The second life."""
        at = self.config.at
        missed = f"the policy reincarnates after step {at}"
        return run.ends_by(at, missed, "set a smaller schedule.at")

    def phase(self, progress: Progress) -> Phase:
        """Phase "mix" up to step `at`, then "on_policy"; the events fire in step `at` + 1 alone."""
        c = self.config
        if progress.step <= c.at:
            return Phase(name="mix")
        events = frozenset[Event]()
        if progress.step == c.at + 1:
            events = fired(clear_buffer=c.clear_buffer, reset_optimizer=c.reset_optimizer)
        return Phase(
            name="on_policy",
            replay=False,
            updates_per_batch=c.updates_after,
            events=events,
        )
