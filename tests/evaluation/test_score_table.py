"""The table of results on a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from rlkit.evaluation.results import Result, results_of
from rlkit.evaluation.score_table import cell, columns, ordered, print_table


def results(*names: str) -> dict[str, Any]:
    values = {f"{kind}@{k}": [1.0, 0.0] for kind in ("pass", "maj") for k in (1, 2, 4)}
    values |= {"greedy": [1.0, 1.0], "length": [100.0, 300.0], "truncated": [0.5, 0.0]}
    values |= {"reflection": [0.0, 0.0]}
    return results_of(
        [
            Result(
                name=name,
                title=name,
                source="file",
                flaws="",
                notes=(),
                settings={"problems": 2, "samples": 4},
                values=values,
            )
            for name in names
        ],
        {"model": "m"},
        None,
        0,
    )


def test_the_largest_k_alone_has_a_column() -> None:
    assert columns(results("a")) == ["pass@1", "greedy", "pass@4", "maj@4", "length", "truncated"]
    assert ordered(["length", "maj@2", "pass@16", "pass@2", "greedy", "pass@1"]) == [
        *("pass@1", "greedy", "pass@2", "pass@16", "maj@2", "length")
    ]


def test_shares_are_per_cent_with_an_interval_and_lengths_are_not() -> None:
    figure = {"value": 0.523, "low": 0.481, "high": 0.5664}
    assert cell("pass@1", figure) == "52.3 [48.1, 56.6]" and cell("pass@1", None) == ""
    assert cell("truncated", figure) == "52.3" and cell("length", {"value": 99.6}) == "100"


def test_the_macro_average_stands_below_several_benchmarks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(results("math500"))
    assert "macro" not in capsys.readouterr().out
    print_table(results("math500", "[red]aime24"))
    out = capsys.readouterr().out
    assert "macro average" in out and "[red]aime24" in out and "50.0 [0.0, 100.0]" in out


def test_a_narrow_terminal_has_the_intervals_below(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(results("math500"), width=100)
    value, interval = capsys.readouterr().out.splitlines()[2:4]
    assert " 50.0 " in value and "[0.0, 100.0]" in interval and "[" not in value
