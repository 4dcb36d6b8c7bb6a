"""How long the parts of a step take."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

import torch

TIMERS = ("rollout", "reward", "forward", "update", "sync")


class Clock:
    """Seconds of a step by what they were spent on.

    A GPU works on after the host has asked: it is waited for before the clock is read, or its work
    would count for whatever comes next.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart()

    def restart(self) -> None:
        """Begin a step."""
        self.seconds: dict[str, float] = dict.fromkeys(TIMERS, 0.0)
        self.started = self.now()

    def now(self) -> float:
        """Seconds since some moment, once the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the step began."""
        return self.now() - self.started

    @contextmanager
    def timed(self, name: str) -> Generator[None]:
        """Counts the seconds inside this context for one of the timers."""
        started = self.now()
        yield
        self.seconds[name] += self.now() - started
