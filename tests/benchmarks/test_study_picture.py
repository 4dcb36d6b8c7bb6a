"""The picture of a study: what it draws, and when there is none."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.test_study import TOY, line, toy
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


def test_costs_are_drawn_as_ratios_and_their_curves_to_the_end(tmp_path: Path) -> None:
    """0.5 after 100 and after 80 responses: 0.8 times as many; the runs end at 100."""
    claim = {**TOY["hypotheses"][0], "cost": "responses"}
    study = toy(hypotheses=[claim, TOY["hypotheses"][0]])
    found = reported(rows(0.1))
    values = picture.compared(study, found, study.hypotheses[0])
    assert [picture.as_ratio(each) for each in values] == pytest.approx([0.8] * 5)
    assert picture.most(study, found) == 100 and picture.most(toy(metric__amount=50), found) == 50
    pytest.importorskip("matplotlib")
    path = tmp_path / "toy.png"
    picture.draw(study, rows(0.1), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_study_with_an_axis_is_drawn_over_it(tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    study = toy(axis={"name": "L", "key": "k", "values": [1, 4]}, tuning=None)
    found = [replace(row, at=at) for at in (1.0, 4.0) for row in rows(0.3 - 0.05 * at)]
    figure, axes = pyplot.subplots()
    picture.draw_axis(axes, study, reported(found))
    heights = [list(each.lines[0].get_ydata()) for each in axes.containers]
    assert heights == [pytest.approx([0.5, 0.5]), pytest.approx([0.75, 0.6])]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    pyplot.close(figure)
    picture.draw(study, found, tmp_path / "toy.png")
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_without_results_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = str(ROOT / "benchmarks" / "studies" / "table3.yaml")
    monkeypatch.setattr(sys, "argv", ["study_picture.py", study, "--results", str(tmp_path)])
    assert picture.main() == 2
    assert capsys.readouterr().err.startswith("table3 has not been run: ")
