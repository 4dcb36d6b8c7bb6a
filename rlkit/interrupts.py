"""Ctrl-C outside training: one line, whatever the code that it meets makes of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 130
"""What a shell calls a command that Ctrl-C ended."""
GRACE = 10
"""Seconds that a command has to clean up."""
_struck = False


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


@contextmanager
def stopped_in_one_line() -> Generator[None]:
    """Inside, Ctrl-C is told at once and raises KeyboardInterrupt.

    Libraries may turn that into other errors, or swallow it: `struck` says what was meant, and the
    process ends within seconds, or with a second Ctrl-C. Training handles Ctrl-C itself.
    """
    global _struck
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) not in (_end, signal.default_int_handler):
        yield
        return
    _struck, hook, alarm = False, sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGINT, _unwind)
    sys.unraisablehook = _unraisable
    try:
        yield
    finally:
        if _struck:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, alarm)
        _struck = False  # what this process calls next was not told to stop
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def ended_by_ctrl_c() -> Generator[None]:
    """Inside, Ctrl-C is how the user ends what would not end by itself: KeyboardInterrupt alone."""
    before = signal.getsignal(signal.SIGINT)
    if before is not _unwind:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def struck() -> bool:
    """Whether Ctrl-C has ended the command, and a line has said so."""
    return _struck


def _unwind(number: int, frame: FrameType | None) -> None:
    global _struck
    if _struck:
        os._exit(INTERRUPTED)
    _struck = True
    if os.environ.get("RANK", "0") == "0":
        _tell(b"rlkit: stopped\n")
    if _is_importing(frame):
        os._exit(INTERRUPTED)
    signal.signal(signal.SIGALRM, _leave)
    signal.alarm(GRACE)
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: some written in C++ abort if that raises."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    """What a callback that cannot raise has raised: KeyboardInterrupt ends the process."""
    if _struck and issubclass(found.exc_type, KeyboardInterrupt):
        os._exit(INTERRUPTED)
    sys.__unraisablehook__(found)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _end(number: int, frame: FrameType | None) -> None:
    _tell(b"rlkit: stopped before anything began\n")
    os._exit(INTERRUPTED)


def _tell(line: bytes) -> None:
    """Write to standard error, on a line of its own after a terminal's ^C."""
    with suppress(OSError):
        os.write(2, b"\n" + line if os.isatty(2) else line)
