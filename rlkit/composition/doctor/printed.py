"""The checks as lines on a terminal, or as JSON."""

from __future__ import annotations

import json
import math
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from rlkit.composition.doctor.check import Check
from rlkit.errors import counted

MARKS = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}
WIDTH, MARK, NAME = 100, 9, 16


class Told:
    """Prints each check as it comes, and what they come to; if `quiet`, one JSON object at last."""

    def __init__(self, model: str, overrides: Sequence[str], *, quiet: bool, about: float) -> None:
        self.model, self.overrides, self.quiet = model, overrides, quiet
        self.checks: list[Check] = []
        self.width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
        self._say(f"Loading {model}, then about {about:.0f} s of checks.")

    def add(self, check: Check) -> None:
        """One more check."""
        self.checks.append(check)
        self._say("\n".join(lines(check, self.width)))

    def conclude(self, default_task: str | None) -> None:
        """What they come to; `default_task` is the task if the user named none."""
        if self.quiet:
            print(as_json(self.model, self.overrides, self.checks))
        if default_task is not None:
            self._say(
                f"No task was given, so the problems are those of task={default_task}: add "
                "task=jsonl task.path=<file> to examine your own."
            )
        self._say(conclusion(self.checks))

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, flush=True)


def lines(check: Check, width: int = WIDTH) -> list[str]:
    """A check's verdict, name and finding, and what to do below it."""
    indent = " " * (MARK + NAME)
    head = f"{MARKS[check.verdict]:<{MARK}}{check.name:<{NAME}}"
    out = textwrap.wrap(check.finding, width, initial_indent=head, subsequent_indent=indent)
    if check.advice:
        told = textwrap.wrap(
            check.advice, width, initial_indent=f"{indent}-> ", subsequent_indent=f"{indent}   "
        )
        out += told
    return out


def conclusion(checks: Sequence[Check]) -> str:
    """What it comes to."""
    count = {v: sum(check.verdict == v for check in checks) for v in MARKS}
    if count["problem"]:
        return f"{counted(count['problem'], 'problem')}, {counted(count['warning'], 'warning')}."
    if count["warning"]:
        return f"No problem, {counted(count['warning'], 'warning')}."
    return "Nothing to mend."


def as_json(model: str, overrides: Sequence[str], checks: Sequence[Check]) -> str:
    """One object; numbers that are not finite become null."""
    found = [
        {
            "name": check.name,
            "verdict": check.verdict,
            "finding": check.finding,
            "advice": check.advice,
            "figures": {name: finite(value) for name, value in check.figures.items()},
        }
        for check in checks
    ]
    return json.dumps(
        {
            "model": model,
            "overrides": list(overrides),
            "problems": sum(check.verdict == "problem" for check in checks),
            "warnings": sum(check.verdict == "warning" for check in checks),
            "checks": found,
        },
        indent=1,
        ensure_ascii=False,
    )


def finite(value: Any) -> Any:
    """The value, or None for nan and infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
