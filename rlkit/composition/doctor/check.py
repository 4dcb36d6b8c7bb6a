"""What a check of the doctor says: a verdict, a finding with its numbers, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["ok", "warning", "problem"]
SEVERITY: tuple[Verdict, ...] = ("ok", "warning", "problem")
Figures = Mapping[str, float | int | str | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check."""

    name: str
    verdict: Verdict
    finding: str
    """What was found, with numbers."""
    advice: str = ""
    """What to do; empty if nothing is."""
    figures: Figures = field(default_factory=dict)
    """The numbers, for machines."""


class Notes:
    """Collects what one check finds; the worst decides, and comes first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.figures: dict[str, float | int | str | bool] = {}
        self._found: list[tuple[Verdict, str, str]] = []

    def fine(self, finding: str) -> None:
        """Nothing to do about this."""
        self._found.append(("ok", finding, ""))

    def warn(self, finding: str, advice: str) -> None:
        """The run works, but perhaps not as meant."""
        self._found.append(("warning", finding, advice))

    def problem(self, finding: str, advice: str) -> None:
        """The run would stop, or train on something wrong."""
        self._found.append(("problem", finding, advice))

    def result(self) -> Check:
        """All findings as one check."""
        ordered = sorted(self._found, key=lambda each: -SEVERITY.index(each[0]))
        return Check(
            name=self.name,
            verdict=ordered[0][0] if ordered else "ok",
            finding=" ".join(finding for _, finding, _ in ordered),
            advice=" ".join(dict.fromkeys(advice for _, _, advice in ordered if advice)),
            figures=self.figures,
        )


def share(count: int, total: int) -> str:
    """A count in words: "3 of 16", "all 16", "none of 16"."""
    if count == total:
        return f"all {total}"
    return f"{count or 'none'} of {total}"


def between(lowest: int, highest: int) -> str:
    """A range in words: "3 to 16", "3"."""
    return str(lowest) if lowest == highest else f"{lowest} to {highest}"


def duration(seconds: float) -> str:
    """Seconds in words: "40 ms", "0.4 s", "3 min", "2.5 h"."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.001 else "less than 1 ms"
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def size(count: float) -> str:
    """Bytes in words: "540 MB", "1.6 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
