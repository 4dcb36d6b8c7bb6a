"""The figures of an evaluation as people read them."""

from __future__ import annotations

from rlkit.evaluation.figures import LENGTH, TRUNCATED
from rlkit.evaluation.statistics import Estimate
from rlkit.evaluation.table import lines_of


def estimate(value: float, error: float) -> Estimate:
    return Estimate(value=value, error=error, low=value - 2 * error, high=value + 2 * error, n=9)


def test_a_figure_is_a_line_with_its_error_and_interval() -> None:
    """Shares have three digits, lengths one; columns are as wide as they need to be."""
    figures = {
        "pass@1": estimate(0.5, 0.0114),
        "reward": estimate(-1.25, 0.25),
        LENGTH: estimate(1234.56, 12.0),
        TRUNCATED: estimate(0.0, 0.0),
    }
    assert lines_of(figures) == [
        "                       value  std. error     95 % interval",
        "pass@1                 0.500       0.011    0.477 to 0.523",
        "mean reward           -1.250       0.250  -1.750 to -0.750",
        "mean length (tokens)  1234.6        12.0  1210.6 to 1258.6",
        "cut off (share)        0.000       0.000    0.000 to 0.000",
    ]
