"""Shares of a step's metrics, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlkit.distributed.processes import SINGLE, Processes
from rlkit.errors import UserError
from rlkit.training.sums import MetricSums, sums_of

MASK = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])


def test_sums_are_over_the_mask_or_over_rows_that_have_a_token() -> None:
    token = torch.tensor([[1.0, 2.0, 100.0], [5.0, 100.0, 100.0], [100.0, 100.0, 100.0]])
    row = torch.tensor([4.0, 6.0, 100.0])
    found = sums_of({"a": token, "b": row, "a_max": token, "b_max": row}, MASK)
    assert found == [("a", 8, 3), ("b", 10, 2), ("a_max", 5, 1), ("b_max", 6, 1)]
    assert sums_of({"a": token, "a_max": token}, torch.zeros_like(MASK)) == []


@pytest.mark.parametrize("shape", [(), (3,), (2, 1)])
def test_a_metric_that_is_reduced_already_is_refused(shape: tuple[int, ...]) -> None:
    """Its mean over micro-batches would depend on how the rows are split."""
    with pytest.raises(UserError, match=r"the metric 'kl' has shape .* return it unreduced"):
        sums_of({"kl": torch.ones(shape)}, torch.ones(2, 4, dtype=torch.bool))


def test_shares_of_a_step_add_up_to_one_mean_and_one_maximum() -> None:
    sums = MetricSums().plus([("a", 6.0, 2.0), ("a_max", -3.0, 1.0)])
    sums.plus([("a", 3.0, 1.0), ("a_max", -5.0, 1.0), ("b", 1.0, 4.0)])
    assert sums.means() == {"a": 3.0, "a_max": -3.0, "b": 0.25}


class Two(Processes):
    """Two ranks; the other one's value is given."""

    world_size = 2

    def __init__(self, other: Any) -> None:
        self.other = other

    def all_gather(self, value: Any) -> list[Any]:
        return [value, self.other]


def test_the_ranks_of_a_step_weigh_by_what_they_counted() -> None:
    other = ({"a": 9.0, "a_max": 7.0, "b": 1.0}, {"a": 3.0, "a_max": 1.0, "b": 1.0})
    own = MetricSums().plus([("a", 1.0, 1.0), ("a_max", 2.0, 1.0)])
    assert own.over(Two(other)).means() == {"a": 2.5, "a_max": 7.0, "b": 1.0}
    assert own.over(SINGLE).means() == own.means()
