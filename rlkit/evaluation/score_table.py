"""The results as a table for a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlkit.evaluation.figures import GREEDY, LENGTH, REFLECTION, TRUNCATED

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 160
"""Columns where there is no terminal."""
NARROW = 130
"""A terminal with fewer columns has the intervals below the values."""
LAST = (LENGTH, TRUNCATED, REFLECTION)
Figure = Mapping[str, float]


def ordered(names: Sequence[str]) -> list[str]:
    """Figures in the order in which they are shown: pass@1, greedy, pass@k, maj@k, the others."""

    def place(name: str) -> tuple[int, int]:
        kind, _, k = name.partition("@")
        if name == "pass@1":
            return 0, 0
        if name in LAST:
            return 4, LAST.index(name)
        return {GREEDY: 1, "pass": 2, "maj": 3}.get(kind, 5), int(k or 0)

    return sorted(names, key=place)


def columns(results: Mapping[str, Any]) -> list[str]:
    """The figures that a terminal has room for: of pass@k and maj@k the largest k alone."""
    known = dict.fromkeys(n for b in results["benchmarks"].values() for n in b["figures"])
    kept = []
    for name in ordered(list(known)):
        kind, at, k = name.partition("@")
        rivals = [int(n.partition("@")[2]) for n in known if n.startswith(f"{kind}@")]
        if not at or name == "pass@1" or int(k) == max(rivals):
            kept.append(name)
    return [name for name in kept if name != REFLECTION]


def cell(name: str, figure: Figure | None) -> str:
    """A figure with its interval: "52.3 [48.1, 56.6]"; shares in per cent, lengths in tokens."""
    if figure is None:
        return ""
    if name == LENGTH:
        return f"{figure['value']:.0f}"
    if name in LAST:
        return f"{100 * figure['value']:.1f}"
    value, low, high = (100 * figure[key] for key in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def heading(name: str) -> str:
    """What a column is called."""
    units = {LENGTH: "tokens", TRUNCATED: "cut off %"}
    return units.get(name, re.sub("^pass@1$", "pass@1 %", name))


def table_of(results: Mapping[str, Any], *, narrow: bool = False) -> Table:
    """A row per benchmark, and the macro average if there are several."""
    from rich.table import Table

    names = columns(results)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("benchmark")
    table.add_column("problems", justify="right")
    table.add_column("samples", justify="right")
    for name in names:
        table.add_column(heading(name), justify="right", no_wrap=True)

    def cells(found: Mapping[str, Figure]) -> list[str]:
        each = [cell(name, found.get(name)) for name in names]
        return [text.replace(" ", "\n", 1) for text in each] if narrow else each

    for label, benchmark in results["benchmarks"].items():
        counts = (str(benchmark["settings"][key]) for key in ("problems", "samples"))
        table.add_row(label, *counts, *cells(benchmark["figures"]))
    if results["macro"] is not None:
        table.add_section()
        table.add_row("macro average", "", "", *cells(results["macro"]))
    return table


def print_table(results: Mapping[str, Any], width: int | None = None) -> None:
    """Print it on standard output, in `width` columns or those of the terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, width=width)
    if width is None and not console.is_terminal:
        console = Console(highlight=False, markup=False, width=WIDTH)
    console.print(table_of(results, narrow=console.width < NARROW))
