"""Ctrl-C while a command is still being imported: one line, as later on."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""What a shell calls a command that Ctrl-C ended."""


def is_command() -> bool:
    """Whether this process is a command of rlkit: `python -m rlkit...`, or the script `rlkit`."""
    if sys.argv[:1] == ["-m"]:  # Python is importing the package of the module it will run
        words = sys.orig_argv
        return words[words.index("-m") + 1].partition(".")[0] == "rlkit"
    return os.path.basename(sys.argv[0]) == "rlkit" if sys.argv else False


def quiet_while_importing() -> None:
    """From now on Ctrl-C ends a command of rlkit at once, with one line."""
    if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def as_usual() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"rlkit: stopped before anything began\n")
    os._exit(INTERRUPTED)
