"""The figures of an evaluation as a table in plain text."""

from __future__ import annotations

from rlkit.evaluation.contest import MARGIN, WIN_RATE
from rlkit.evaluation.figures import LENGTH, REFLECTION, TRUNCATED, Figures
from rlkit.evaluation.statistics import Estimate

TITLES = {
    LENGTH: "mean length (tokens)",
    TRUNCATED: "cut off (share)",
    REFLECTION: "reflection (share)",
    "reward": "mean reward",
    WIN_RATE: "win rate",
    MARGIN: "win margin",
}
"""What figures are called here, where that is not their name."""
HEAD = ("", "value", "std. error", "95 % interval")


def lines_of(figures: Figures) -> list[str]:
    """A line per figure, with its standard error and its interval over problems."""
    cells = [HEAD, *(row(name, found) for name, found in figures.items())]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def row(name: str, found: Estimate) -> tuple[str, str, str, str]:
    """A figure's cells."""
    form = "{:.1f}" if name == LENGTH else "{:.3f}"
    value, error, low, high = (
        form.format(x) for x in (found.value, found.error, found.low, found.high)
    )
    return TITLES.get(name, name), value, error, f"{low} to {high}"
