"""Medians and middle halves of lines over a common grid."""

from __future__ import annotations

import pytest

from rlkit.pages.curves import POINTS, common_grid, curve, first_reach

INF = float("inf")


def test_the_quartiles_of_five_lines_are_the_second_third_and_fourth():
    lines = [([0, 10], [0.0, float(top)]) for top in (5, 1, 4, 2, 3)]
    found = curve(lines, [0, 5, 10])
    assert found.low == [0.0, 1.0, 2.0]
    assert found.median == [0.0, 1.5, 3.0]
    assert found.high == [0.0, 2.0, 4.0]


def test_the_grid_holds_every_point_of_every_line_once():
    assert common_grid([([0, 2, 4], [0] * 3), ([0, 3, 4], [0] * 3)]) == [0, 2, 3, 4]
    assert common_grid([]) == []


def test_a_fine_grid_is_thinned_to_even_points_with_its_ends():
    fine = common_grid([(range(1001), [0.0] * 1001)])
    assert len(fine) == POINTS
    assert (fine[0], fine[-1]) == (0, 1000)
    assert fine[1] - fine[0] == pytest.approx(1000 / (POINTS - 1))


def test_there_is_no_median_where_one_of_the_lines_has_ended():
    found = curve([([0, 2], [1.0, 1.0]), ([0, 1], [3.0, 3.0])], [0, 1, 2])
    assert found.median == [2.0, 2.0, None]
    assert found.low[2] is None and found.high[2] is None


def test_a_line_without_points_leaves_nothing():
    assert curve([([0, 2], [1.0, 1.0]), ([], [])], [0, 2]).median == [None, None]


def test_the_first_value_that_is_high_enough_counts():
    line = ([0, 10, 20, 30], [0.1, 0.5, 0.4, 0.6])
    assert first_reach(line, 0.5) == 10
    assert first_reach(line, 0.55) == 30
    assert first_reach(line, 0.7) == INF
