"""The picture of a study: what it draws, and when there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.benchmarks.test_study import line, toy
from tests.cli import ROOT

sys.path += [str(ROOT / "benchmarks")]  # scripts import each other

import study_picture as picture
import study_results as results
from study_figures import reported


def rows(better: float = 0.2) -> list[results.Row]:
    """Five seeds of two ways, which begin alike; the second ends higher by so much."""
    out = []
    for seed in range(5):
        for variant, gain in (("one", 0.4), ("two", 0.4 + better)):
            out += [line(variant, seed, 0, 0.1), line(variant, seed, 100, 0.1 + gain)]
    return out


def test_a_curve_is_the_median_on_the_line_between_evaluations() -> None:
    found = reported(rows())
    points = picture.band(found["two", None], "responses", 50)
    assert [x for x, _ in points][:: picture.POINTS // 2] == [0, 25, 50]
    assert [round(each.middle, 9) for _, each in points[:: picture.POINTS // 2]] == [0.1, 0.25, 0.4]


def test_the_ways_of_the_first_hypothesis_and_the_control_are_drawn(tmp_path: Path) -> None:
    assert picture.shown(toy()) == ["two", "one"], "the control is the other way"
    pytest.importorskip("matplotlib")
    path = tmp_path / "toy.png"
    picture.draw(toy(), rows(), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_study_without_results_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = str(ROOT / "benchmarks" / "studies" / "table3.yaml")
    monkeypatch.setattr(sys, "argv", ["study_picture.py", study, "--results", str(tmp_path)])
    assert picture.main() == 2
    assert capsys.readouterr().err.startswith("table3 has not been run: ")
