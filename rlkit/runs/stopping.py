"""Ctrl-C and SIGTERM: the first finishes the step and saves, the second stops at once."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from rlkit.config.overrides import key_of
from rlkit.interrupts import struck

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The run was asked to stop by a signal, and did."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number
        """What a shell calls a command that the signal ended: 130 for Ctrl-C, 143 for SIGTERM."""


class StopRequest:
    """Whether somebody asked the run to stop."""

    number: int | None = None
    """The signal that asked."""

    def __call__(self) -> bool:
        """Whether to stop after this step."""
        return self.number is not None


@contextmanager
def stop_on_signals(request: StopRequest, say: Callable[[str], None]) -> Generator[None]:
    """A signal inside this context asks the run to stop; a second raises KeyboardInterrupt.

    Outside the main thread, which alone receives signals, nothing changes. What came before, and
    was swallowed, counts too.
    """
    if struck():
        raise KeyboardInterrupt

    def receive(number: int, frame: FrameType | None) -> None:
        if request():
            raise KeyboardInterrupt
        request.number = number
        with suppress(RuntimeError):  # the signal came while a line was being written
            say("Stopping after this step, with a checkpoint. A second Ctrl-C stops at once.")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, receive) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resume_command(overrides: Sequence[str], output_dir: str, processes: int = 1) -> str:
    """The command line that continues a run."""
    kept = [o for o in overrides if key_of(o) not in ("output_dir", "resume")]
    arguments = [*kept, f"output_dir={output_dir}", "resume=auto"]
    launch = f"(launched with {processes} processes, as before)" if processes > 1 else "python"
    return f"{launch} -m rlkit.run " + " ".join(map(shlex.quote, arguments))
