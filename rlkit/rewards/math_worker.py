"""The math reward's worker process: reads {"gold", "text", "alarm"} lines, writes a verdict a line.

Text of a model reaches a symbolic algebra system here. So the process may be killed at any moment,
has a memory limit, gets few environment variables, and refuses to write, start or connect to
anything (PEP 578 audit hook: it stops Python code that slips through a parser, and is no sandbox
against native code).
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sys
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

REFUSED = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "urllib.", "tempfile.")
NEEDED_BY_IMPORTS = ("os.listdir", "os.scandir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
STATUS = Path("/proc/self/status")
SUSPECT_SHARE = 0.75
"""The share of the memory limit beyond which a failure is taken for a want of memory."""


@cache
def math_verify() -> Any:
    """The library, imported late: with sympy it costs half a second, which only workers pay."""
    return importlib.import_module("math_verify")


def boxed(answer: str) -> str:
    r"""A gold answer in \boxed{}: bare LaTeX is not read as mathematics otherwise.

    One pair of $ around it is dropped; a gold that has a \boxed{} stays as it is.
    """
    if r"\boxed" in answer:
        return answer
    inner = answer[1:-1]
    dollars = len(answer) > 2 and answer[0] == answer[-1] == "$"
    if dollars and "$" not in inner and not inner.endswith("\\"):
        answer = inner
    return rf"\boxed{{{answer}}}"


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} with balanced braces, or None."""
    opened: list[int | None] = []
    content = None
    for brace in re.finditer(r"(\\boxed)?\{|\}", text):
        if brace[0] != "}":
            opened.append(brace.end() if brace[1] else None)
        elif opened and (start := opened.pop()) is not None:
            content = text[start : brace.start()]
    return content


def parse(text: str) -> list[Any]:
    """math-verify's reading of a text: sympy objects, and the string it took for the answer.

    A box comes before any other answer, and one that cannot be read is not passed over. Boxes next
    to each other, or with a comma, "and" or "or" between them, are read as one set.
    """
    library = math_verify()
    found: list[Any] = library.parse(
        text,
        [library.LatexExtractionConfig(boxed_match_priority=0), library.ExprExtractionConfig()],
        extraction_mode="first_match" if r"\boxed" in text else "any_match",
        parsing_timeout=None,
        raise_on_error=True,
    )
    return found


@lru_cache(maxsize=1024)
def parse_gold(gold: str) -> tuple[Any, ...]:
    """The reading of a gold answer, which the responses of a group share."""
    return tuple(parse(boxed(gold)))


def matches(gold: str, text: str) -> bool:
    """Whether a text gives the gold answer; a gold that is no mathematics is compared as a string.

    Raises what a comparison raised when no other reading of the text matches.
    """
    golds, answers = parse_gold(gold), parse(text)
    if all(isinstance(g, str) for g in golds):
        wanted, given = last_boxed(boxed(gold)) or gold, last_boxed(text) or text
        strings = (a for a in answers if isinstance(a, str))
        return wanted.split() == given.split() or any(a in golds for a in strings)
    failure: Exception | None = None
    for g, answer in product(golds, answers):
        try:
            if math_verify().verify(g, answer, timeout_seconds=None, raise_on_error=True):
                return True
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure
    return False


def judge(gold: str, text: str, suspect_bytes: int | None) -> dict[str, Any]:
    """The verdict on one text ("score", "limit" or "error") and whether to "retire" this worker.

    math-verify swallows most MemoryErrors, so that no match after the address space grew beyond
    `suspect_bytes` is taken for one.
    """
    verdict: dict[str, Any]
    try:
        verdict = {"score": float(matches(gold, text))}
    except (MemoryError, RecursionError) as error:
        verdict = {"limit": type(error).__name__}
    except Exception as error:
        verdict = {"error": f"{type(error).__name__}: {error}"[:300]}
    exhausted = suspect_bytes is not None and peak_bytes() >= suspect_bytes
    if exhausted and verdict != {"score": 1.0}:
        verdict = {"limit": "MemoryError"}
    return verdict | {"retire": exhausted}


def peak_bytes() -> int:
    """The largest address space this process ever had; 0 where the system does not say."""
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

    An item that outlasts its alarm ends the process, also when nobody is left to kill it.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    matches("1", r"\boxed{1}")
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
        verdict = judge(item["gold"], item["text"], suspect_bytes)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(verdict), file=replies)


if __name__ == "__main__":
    main(int(sys.argv[1]) or None)
