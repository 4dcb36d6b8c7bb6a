"""No rebirth: one phase from the first step to the last."""

from __future__ import annotations

from rlkit.interfaces import PartConfig, Phase, Progress, ReincarnationSchedule
from rlkit.registry import register


class NeverConfig(PartConfig):
    """Nothing to set."""


@register("schedule", "never")
class Never(ReincarnationSchedule[NeverConfig]):
    """The phase "train", with replay as the buffer has it.

    Status: exact; nothing changes.
    """

    sources = ()

    def phase(self, progress: Progress) -> Phase:
        """Always the same."""
        return Phase(name="train")
