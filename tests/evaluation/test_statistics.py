"""Means with intervals, by hand and against what is known of the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from rlkit.evaluation import statistics
from rlkit.evaluation.statistics import mean_interval, paired_difference, unpaired_difference


def test_the_mean_and_its_standard_error_by_hand() -> None:
    """Values 0, 0, 1, 1: mean 1/2, s^2 = 4 * (1/2)^2 / 3 = 1/3, s / sqrt(4) = sqrt(1/12)."""
    found = mean_interval([0.0, 0.0, 1.0, 1.0])
    assert found.value == 0.5
    assert found.error == pytest.approx((1 / 12) ** 0.5)
    assert found.n == 4
    assert found.low < 0.5 < found.high


def test_two_values_have_the_quantiles_of_three_known_means() -> None:
    """Samples of {0, 1} with replacement have mean 0 (1/4), 1/2 (1/2) or 1 (1/4): at level 0.4 the
    0.3 and 0.7 quantiles are 1/2, at level 0.9 they are 0 and 1. Both are far from a border."""
    assert (
        mean_interval([0.0, 1.0], level=0.4).low,
        mean_interval([0.0, 1.0], level=0.4).high,
    ) == (
        0.5,
        0.5,
    )
    wide = mean_interval([0.0, 1.0], level=0.9)
    assert (wide.low, wide.high) == (0.0, 1.0)


def test_many_values_have_the_normal_interval() -> None:
    """By the central limit theorem the ends are mean -+ 1.96 s / sqrt(n), within the draws' noise:
    the standard error of a 2.5 % quantile of 2,000 draws is about 0.06 of the standard error."""
    values = np.random.default_rng(3).random(2_000)
    found = mean_interval(list(values))
    assert found.low == pytest.approx(found.value - 1.96 * found.error, abs=0.3 * found.error)
    assert found.high == pytest.approx(found.value + 1.96 * found.error, abs=0.3 * found.error)


def test_one_value_has_no_spread_and_none_is_refused() -> None:
    found = mean_interval([0.25])
    assert (found.value, found.error, found.low, found.high) == (0.25, 0.0, 0.25, 0.25)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


def test_the_interval_repeats_and_does_not_depend_on_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks bound the memory only: the generator draws row after row."""
    values = [0.0, 0.2, 0.9, 1.0, 0.4]
    whole = mean_interval(values, draws=100)
    assert mean_interval(values, draws=100) == whole
    monkeypatch.setattr(statistics, "BLOCK", 35)
    assert mean_interval(values, draws=100) == whole


def test_pairing_removes_what_both_share() -> None:
    """The two differ by 0.1 on each problem: no spread is left, however hard they are."""
    first = [0.0, 0.5, 0.9, 0.1]
    found = paired_difference(first, [x + 0.1 for x in first])
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1)
    assert found.distinguishable
    assert paired_difference([x + 0.1 for x in first], first).distinguishable
    assert not paired_difference([0.0, 1.0], [1.0, 0.0]).distinguishable
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([0.0], [0.0, 1.0])


def test_without_pairs_both_sides_are_drawn_by_themselves() -> None:
    """Means of {0, 1} are 0, 1/2, 1 by 1/4, 1/2, 1/4; of two such sides the difference is -1, -1/2,
    0, 1/2, 1 by 1/16, 4/16, 6/16, 4/16, 1/16. At level 0.98 the ends are -1 and 1, at level 0.8
    -1/2 and 1/2, at level 0.2 zero: all far from a border. With pairs it would be zero always."""
    two = [0.0, 1.0]
    for level, end in ((0.98, 1.0), (0.8, 0.5), (0.2, 0.0)):
        found = unpaired_difference(two, two, level=level)
        assert (found.low, found.high) == (-end, end)
    assert paired_difference(two, two, level=0.98).high == 0.0


def test_an_unpaired_difference_has_the_error_of_both_sides() -> None:
    found = unpaired_difference([0.0, 1.0, 0.0, 1.0], [2.0, 3.0, 2.0])
    errors = [mean_interval(side).error for side in ([0.0, 1.0, 0.0, 1.0], [2.0, 3.0, 2.0])]
    assert found.value == pytest.approx(7 / 3 - 0.5)
    assert found.error == pytest.approx((errors[0] ** 2 + errors[1] ** 2) ** 0.5)
    assert found.n == 3
    with pytest.raises(ValueError, match="at least one"):
        unpaired_difference([], [1.0])
