"""The results as a table for a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlkit.evaluation.figures import GREEDY, LENGTH, REFLECTION, TRUNCATED

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 110
"""Columns where there is no terminal, or a narrow one."""
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


def heading(name: str, samples: int | None = None) -> str:
    """What a column is called."""
    units = {LENGTH: "tokens", TRUNCATED: "cut off %"}
    return units.get(name, re.sub("^pass@1$", "pass@1 %", name))


def table_of(results: Mapping[str, Any]) -> Table:
    """A row per benchmark, and the macro average if there are several."""
    from rich.table import Table

    names = columns(results)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("benchmark")
    table.add_column("problems", justify="right")
    table.add_column("samples", justify="right")
    for name in names:
        table.add_column(heading(name), justify="right")
    for label, benchmark in results["benchmarks"].items():
        settings, found = benchmark["settings"], benchmark["figures"]
        cells = (cell(name, found.get(name)) for name in names)
        table.add_row(label, str(settings["problems"]), str(settings["samples"]), *cells)
    if results["macro"] is not None:
        table.add_section()
        cells = (cell(name, results["macro"].get(name)) for name in names)
        table.add_row("macro average", "", "", *cells)
    return table


def print_table(results: Mapping[str, Any]) -> None:
    """Print it, wide enough for its columns where there is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=max(WIDTH, console.width))
    console.print(table_of(results))
