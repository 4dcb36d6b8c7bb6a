"""Statistics of rows by their group: by hand, and what holds for any grouping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlkit.ops import (
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


@pytest.mark.parametrize("statistic", [group_sum, group_mean, group_max, group_log_mean_exp])
def test_a_group_of_one_is_itself(statistic) -> None:
    x: Tensor = torch.tensor([2.5, -1.0])
    assert statistic(x, torch.tensor([1, 0])).tolist() == [2.5, -1.0]
