"""The math reward's worker process: reads items as JSON lines, writes one verdict per line.

An item is {"gold", "text", "tolerance", "alarm"}, or {"answers", "tolerance", "alarm"} with two
answers that models gave. What a model wrote is never evaluated as code,
but a symbolic algebra system works on it, which may take long. So the process may be killed at any
moment, has a memory limit, gets few environment variables, and refuses to write, start or connect
to anything (PEP 578 audit hook: it stops Python code, and is no sandbox against native code).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

REFUSED = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "urllib.", "tempfile.")
NEEDED_BY_IMPORTS = ("os.listdir", "os.scandir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
STATUS = Path("/proc/self/status")
SUSPECT_SHARE = 0.75
"""The share of the memory limit beyond which a failure is attributed to lack of memory."""


RAISED = "raised "
"""Prefix of a limit's reason that marks an exception caused by the model's text."""


@cache
def checker() -> Any:
    """The judging code, imported late: sympy costs half a second, which only workers pay."""
    return importlib.import_module("rlkit.rewards.math.equal")


def matches(gold: str, text: str, tolerance: float) -> bool:
    """Whether a text gives the gold answer."""
    return bool(checker().matches(gold, text, tolerance))


def alike(one: str, other: str, tolerance: float) -> bool:
    """Whether two answers that were cut out of texts are equal."""
    return bool(checker().alike(one, other, tolerance))


def judge(
    gold: str, text: str, tolerance: float, suspect_bytes: int | None = None
) -> dict[str, Any]:
    """The verdict on one text ("score", "limit" or "error") and whether to "retire" this worker.

    An exception over the gold is an "error"; one over the text is the model's doing and a "limit".
    So is no match after the address space grew beyond `suspect_bytes`: a MemoryError may have been
    swallowed on the way.
    """
    try:
        checker().gold_text(gold)
    except Exception as error:
        return {"error": described(error), "retire": False}
    return attempt(lambda: matches(gold, text, tolerance), suspect_bytes)


def compare(
    answers: list[str], tolerance: float, suspect_bytes: int | None = None
) -> dict[str, Any]:
    """The verdict on whether two answers are the same, whichever of them is the gold."""
    one, other = answers
    return attempt(lambda: alike(one, other, tolerance), suspect_bytes)


def attempt(question: Callable[[], bool], suspect_bytes: int | None) -> dict[str, Any]:
    """The verdict on a question about what models wrote, and whether to "retire" this worker."""
    verdict: dict[str, Any]
    try:
        verdict = {"score": float(question())}
    except (MemoryError, RecursionError) as error:
        verdict = {"limit": type(error).__name__}
    except Exception as error:
        verdict = {"limit": RAISED + described(error)}
    exhausted = suspect_bytes is not None and peak_bytes() >= suspect_bytes
    if exhausted and verdict != {"score": 1.0}:
        verdict = {"limit": "MemoryError"}
    return verdict | {"retire": exhausted}


def described(error: Exception) -> str:
    """The kind and the message of an exception, shortened."""
    return f"{type(error).__name__}: {error}"[:300]


def peak_bytes() -> int:
    """The largest address space this process ever had; 0 if the system does not say."""
    if not STATUS.exists():
        return 0
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmPeak:"))


def limit_memory(memory_mb: int) -> int:
    """Limit the address space; returns the peak from which memory counts as exhausted."""
    resource = importlib.import_module("resource")
    limit = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return int(SUSPECT_SHARE * limit)


def refuse_side_effects() -> None:
    """Let every later attempt to write a file, start a process or connect raise PermissionError."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            refused = bool((arguments[2] or 0) & WRITING)
        else:
            refused = event.startswith(REFUSED) and event not in NEEDED_BY_IMPORTS
        if refused:
            raise PermissionError(f"the math worker may not use {event}")

    sys.addaudithook(hook)


def main(memory_mb: int | None) -> None:
    """Judge until stdin ends.

    An item that outlasts its alarm ends the process, even if nobody is left to kill it.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    checker()
    matches("x", r"\boxed{x + 0}", 0.0)
    suspect_bytes = None if memory_mb is None else limit_memory(memory_mb)
    print(json.dumps({"ready": True}), file=replies)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    refuse_side_effects()
    for line in sys.stdin:
        item = json.loads(line)
        # The default action of SIGALRM ends the process in the kernel, also inside one long C call.
        signal.setitimer(signal.ITIMER_REAL, item["alarm"])
        verdict = answered(item, suspect_bytes)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(verdict), file=replies)


def answered(item: dict[str, Any], suspect_bytes: int | None) -> dict[str, Any]:
    """The verdict on an item of either kind."""
    if "answers" in item:
        return compare(item["answers"], item["tolerance"], suspect_bytes)
    return judge(item["gold"], item["text"], item["tolerance"], suspect_bytes)


if __name__ == "__main__":
    main(int(sys.argv[1]) or None)
