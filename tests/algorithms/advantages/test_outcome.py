"""What estimators with one reward per response share."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch

from algorithms.advantages.outcome import lonely, outcome, standardized
from tests.algorithms.advantages.hand import batch_of, lengths


def test_an_advantage_stands_on_each_valid_token_and_the_returns_are_the_rewards() -> None:
    b = replace(batch_of([1.0, 3.0], [0, 0]), mask=lengths([2, 1]))
    out = outcome(torch.tensor([-1.0, 1.0]), b, {"advantage/some": 2.0})
    assert out.advantage.tolist() == [[-1, -1], [1, 0]]
    assert out.returns.tolist() == [[1, 1], [3, 0]]
    assert out.metrics == {"advantage/some": 2.0} and outcome(b.reward, b).metrics == {}


@pytest.mark.parametrize(("singleton", "alone"), [("raw_score", 5.0), ("zero", 0.0)])
def test_only_a_response_alone_in_its_group_is_replaced(singleton, alone: float) -> None:
    reward, group = torch.tensor([1.0, 0.0, 5.0]), torch.tensor([4, 4, 9])
    found = lonely(torch.tensor([7.0, 8.0, 9.0]), reward, group, singleton)
    assert found.tolist() == [7, 8, alone]


@pytest.mark.parametrize(
    ("unbiased", "spread"), [(True, statistics.stdev), (False, statistics.pstdev)]
)
def test_standardized_over_all(unbiased: bool, spread) -> None:
    x = [1.0, 0.0, 0.0, 3.0]
    found = standardized(torch.tensor(x).double(), 0.5, unbiased=unbiased)
    assert found.tolist() == pytest.approx([(v - 1) / (spread(x) + 0.5) for v in x])


def test_equal_numbers_and_a_single_one_become_exactly_zero() -> None:
    """Rounding in the mean of 0.1 would be a push, once divided by a tiny spread."""
    for x in ([0.1] * 3, [0.7]):
        assert standardized(torch.tensor(x), 1e-6).tolist() == [0] * len(x)
