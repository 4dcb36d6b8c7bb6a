"""A metric of several runs over one axis: the median of the runs and their middle half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Line = tuple[Sequence[float], Sequence[float]]
"""x, ascending, and y."""
POINTS = 200
"""Points of a common grid, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Values at the points of a grid; None where not every run has been."""

    median: list[float | None]
    low: list[float | None]
    """The lower quartile."""
    high: list[float | None]
    """The upper quartile."""


def thinned(line: Line) -> Line:
    """A line of at most POINTS points: means of neighbors, in x too, where it has more."""
    size = -(-len(line[0]) // POINTS)
    if size <= 1:
        return line
    starts = range(0, len(line[0]), size)
    x, y = ([fmean(values[at : at + size]) for at in starts] for values in line)
    return x, y


def common_grid(lines: Sequence[Line]) -> list[float]:
    """Every x of the lines, or if those are many, POINTS evenly spaced ones over their range."""
    every = np.unique([value for x, _ in lines for value in x])
    if len(every) > POINTS:
        every = np.linspace(every[0], every[-1], POINTS)
    return [float(x) for x in every]


def curve(lines: Sequence[Line], grid: Sequence[float]) -> Curve:
    """The quartiles over the lines, each linear between its points.

    Only where all lines have values: an average over fewer runs further on would jump where one
    ends, and would be one of those that lasted.
    """
    at = np.asarray(grid, dtype=np.float64)
    rows = np.stack([_on_grid(line, at) for line in lines])  # [runs, points]
    low, median, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    return Curve(median=_listed(median), low=_listed(low), high=_listed(high))


def first_reach(line: Line, target: float) -> float:
    """The first x with a value of at least `target`; infinite if there is none."""
    return next((x for x, y in zip(*line, strict=True) if y >= target), float("inf"))


def _on_grid(line: Line, at: Floats) -> Floats:
    if not line[0]:
        return np.full(len(at), np.nan)
    x, y = (np.asarray(values, dtype=np.float64) for values in line)
    return np.interp(at, x, y, left=np.nan, right=np.nan)


def _listed(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
