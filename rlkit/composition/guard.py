"""The edge of every command: a user's mistake becomes one line and status 2."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from rlkit.distributed.rank import launched
from rlkit.errors import UserError
from rlkit.interrupts import INTERRUPTED, stopped_in_one_line, struck

USER_ERROR = 2
PATIENCE = 5.0
"""Seconds that a later process waits before it tells of an error, which the first may tell too."""


def guarded(call: Callable[[], None]) -> int:
    """Run `call`; a user's mistake becomes one line and status 2."""
    with stopped_in_one_line():
        if os.environ.get("RLKIT_DEBUG"):
            call()
            return 0
        return _guarded(call)


def _guarded(call: Callable[[], None]) -> int:
    try:
        call()
        sys.stdout.flush()
    except KeyboardInterrupt:
        line = "rlkit: stopped at once; continue from the last checkpoint: resume=auto"
        if launched()[0] == 0 and not struck():
            print(line, file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if struck():
            return INTERRUPTED
        line_of_user = in_words(error)
        if line_of_user is None:
            raise
        return leave(line_of_user)
    return INTERRUPTED if struck() else 0


def in_words(error: Exception) -> str | None:
    """A user's mistake on one line; None for an error that is not the user's."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    # Imported here: commands that do not compose have no need of Hydra.
    from rlkit.composition.error_messages import MAPPED, one_line

    return one_line(error) if isinstance(error, MAPPED) else None


def leave(line: str) -> int:
    """Tell the user what is wrong, once; of several processes the first does, if it knows too."""
    rank, count = launched()
    if rank > 0:
        time.sleep(PATIENCE)  # the launcher ends this process meanwhile, if another one has failed
        line = f"(process {rank}) {line}"
    print(f"rlkit: {line}", file=sys.stderr, flush=True)
    if count > 1:
        os._exit(USER_ERROR)  # the others may wait for this one, and would not let it go
    return USER_ERROR
