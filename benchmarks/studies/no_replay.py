"""The control of a study of replay: `plugins=[./benchmarks/studies/no_replay.py] buffer=no_replay`.

A step generates as many groups as it would with `buffer=fifo`, and replays none. So its fresh
responses, optimizer steps, loss, anchor and schedule are those of the run with replay.
"""

from __future__ import annotations

from buffers.fifo import Fifo
from rlkit.batch import Group
from rlkit.registry import register


@register("buffer", "no_replay")
class NoReplay(Fifo):
    """Plans as fifo does, and trains on the fresh groups alone.

    Status: our choice.
    """

    sources = ()  # type: ignore[assignment]

    def build(self, fresh: list[Group], batch: int, step: int) -> list[Group]:
        """The fresh groups."""
        return fresh

    def add(self, fresh: list[Group], step: int) -> None:
        """Store nothing."""
