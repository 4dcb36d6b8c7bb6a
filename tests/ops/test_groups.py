"""Statistics of rows by their group: by hand, and what holds for any grouping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlkit.ops import (
    apart,
    group_centred,
    group_log_mean_exp,
    group_max,
    group_mean,
    group_share,
    group_size,
    group_sum,
)

GROUP = torch.tensor([7, 3, 7, 3, 3, 9])
X = torch.tensor([1.0, 2.0, 5.0, -4.0, 8.0, 6.0])
"""Groups 7: 1, 5; 3: 2, -4, 8; 9: 6."""


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        (group_sum, [6, 6, 6, 6, 6, 6]),
        (group_mean, [3, 2, 3, 2, 2, 6]),
        (group_max, [5, 8, 5, 8, 8, 6]),
        (group_centred, [-2, 0, 2, -6, 6, 0]),
    ],
)
def test_each_row_gets_its_groups_statistic(statistic, expected: list[float]) -> None:
    assert statistic(X, GROUP).tolist() == expected
    order = torch.tensor([5, 2, 4, 0, 1, 3])
    assert torch.equal(statistic(X[order], GROUP[order]), statistic(X, GROUP)[order])


def test_sizes_are_of_groups_with_any_numbers() -> None:
    assert group_size(GROUP, torch.float64).tolist() == [2, 3, 2, 3, 3, 1]
    assert group_size(GROUP, torch.float64).dtype == torch.float64


def test_log_mean_exp_by_hand_and_without_overflow() -> None:
    x = torch.tensor([math.log(1), math.log(3), 1000.0, 1000.0, -1000.0])
    group = torch.tensor([0, 0, 1, 1, 2])
    found = group_log_mean_exp(x, group)
    torch.testing.assert_close(found, torch.tensor([math.log(2), math.log(2), 1e3, 1e3, -1e3]))


def test_the_share_makes_a_mean_over_rows_one_over_groups() -> None:
    """(3 + 2 + 6) / 3 over the groups' means."""
    share = group_share(GROUP, torch.float32)
    assert (share * X).mean().item() == pytest.approx(11 / 3)
    assert group_share(torch.tensor([4, 4, 1, 1]), torch.float32).tolist() == [1, 1, 1, 1]


def test_equal_rows_are_centred_to_exactly_zero() -> None:
    x = torch.full((7,), 0.1)
    group = torch.zeros(7, dtype=torch.int64)
    assert group_centred(x, group).tolist() == [0.0] * 7
    assert x.sum() / 7 != x[0], "a plain mean of these is rounded"


@pytest.mark.parametrize("size", [1e-3, 0.35, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_differences_in_the_last_place_are_none_and_larger_ones_stay(
    size: float, dtype: torch.dtype
) -> None:
    """The second group's differ by a thousandth."""
    one = torch.tensor(size, dtype=dtype)
    x = torch.stack([one, one.nextafter(one * 2), one, one, one * 1.001])
    found = group_centred(x, torch.tensor([3, 3, 3, 5, 5]))
    assert not found[:3].any()
    half = torch.tensor([-5e-4, 5e-4], dtype=dtype) * size
    torch.testing.assert_close(found[3:], half, rtol=1e-3, atol=0)


def test_rows_that_do_not_count_stand_apart() -> None:
    """Of groups 7 and 2, two rows and one count: each group's mean has half of the weight."""
    group, counted = torch.tensor([7, 2, 7, 7, 2]), torch.tensor([True, True, False, True, False])
    found = apart(group, counted)
    assert found[counted].tolist() == [7, 2, 7]
    assert len({7, 2, *found[~counted].tolist()}) == 4
    assert group_size(found, torch.float32).tolist() == [2, 1, 1, 2, 1]
    x = torch.tensor([1.0, 9.0, 50.0, 5.0, 50.0])
    share = group_share(found, torch.float32, counted)
    assert (share * x)[counted].mean() == (3 + 9) / 2
    assert group_share(found, torch.float32, counted & False).isfinite().all()


@pytest.mark.parametrize("statistic", [group_sum, group_mean, group_max, group_log_mean_exp])
def test_a_group_of_one_is_itself(statistic) -> None:
    x: Tensor = torch.tensor([2.5, -1.0])
    assert statistic(x, torch.tensor([1, 0])).tolist() == [2.5, -1.0]
