"""How far an evaluation is, on a terminal and elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from rlkit.evaluation.progress import bar


def told(*, terminal: bool) -> str:
    out = io.StringIO()
    with bar(Console(file=out, force_terminal=terminal, width=80)) as tell:
        for done in (0, 3, 8):
            tell("evaluating", done, 8)
        tell("evaluating greedily", 2, 8)
    return out.getvalue()


def test_a_terminal_has_a_bar_for_each_task() -> None:
    shown = told(terminal=True)
    assert "evaluating" in shown and "8/8" in shown
    assert "evaluating greedily" in shown and "2/8" in shown


def test_a_file_gets_nothing() -> None:
    assert told(terminal=False) == ""
