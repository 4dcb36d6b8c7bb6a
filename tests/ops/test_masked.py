"""Masked reductions and ratios by hand; aggregations as sums that any split shares."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.ops import (
    Aggregation,
    RatioLevel,
    aggregate_weights,
    clipped_value_loss,
    effective_sample_size,
    masked_log_ratio,
    masked_mean,
    masked_ratio,
    over_tokens,
    sequence_advantage,
    sequence_log_ratio,
    sequence_mean,
    sequence_sum,
    whiten,
)

MASK = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
X = torch.tensor([[1.0, 3.0, 50.0], [8.0, 50.0, 50.0], [50.0, 50.0, 50.0]])
NONE = torch.zeros_like(MASK)
LOG2 = math.log(2)


def test_reductions_read_valid_tokens_alone() -> None:
    assert masked_mean(X, MASK) == 4
    assert sequence_mean(X, MASK).tolist() == [2, 8, 0]
    assert sequence_sum(X, MASK).tolist() == [4, 8, 0]
    assert masked_mean(X, NONE) == 0
    assert masked_mean(torch.tensor([2.0, 9.0]), torch.tensor([True, False])) == 2


def test_what_is_masked_may_be_infinite_and_has_no_gradient() -> None:
    logp = torch.tensor([[-1.0, float("-inf")]], requires_grad=True)
    other, mask = torch.tensor([[-1.0 - LOG2, float("nan")]]), torch.tensor([[True, False]])
    ratio = masked_ratio(logp, other, mask)
    torch.testing.assert_close(ratio, torch.tensor([[2.0, 1.0]]))
    (gradient,) = torch.autograd.grad(ratio.sum(), logp)
    torch.testing.assert_close(gradient, torch.tensor([[2.0, 0.0]]))
    assert masked_log_ratio(logp, other, mask)[0, 1] == 0


def test_a_clamped_log_ratio_has_no_gradient_outside() -> None:
    logp = torch.tensor([[5.0, -5.0, 1.0]], requires_grad=True)
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = masked_log_ratio(logp, torch.zeros(1, 3), mask, clamp=2.0)
    assert found.tolist() == [[2, -2, 1]]
    (gradient,) = torch.autograd.grad(found.sum(), logp)
    assert gradient.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("token", [[1, 3, 0], [8, 0, 0], [0, 0, 0]]),
        ("geometric", [[2], [8], [0]]),
        ("product", [[4], [8], [0]]),
    ],
)
def test_levels_of_a_ratio(level: RatioLevel, expected: list[list[float]]) -> None:
    masked = torch.where(MASK, X, 0.0)
    assert sequence_log_ratio(masked, MASK, level).tolist() == expected


@pytest.mark.parametrize(
    ("aggregation", "weights"),
    [
        ("token-mean", [1 / 3, 1 / 3, 1 / 3]),
        ("token-sum", [1, 1, 1]),
        ("seq-mean-token-mean", [1 / 4, 1 / 4, 1 / 2]),
        ("seq-mean-token-sum", [1 / 2, 1 / 2, 1 / 2]),
        ("seq-mean-token-sum-norm", [1 / 20, 1 / 20, 1 / 20]),
        ("token-sum-norm", [1 / 10, 1 / 10, 1 / 10]),
    ],
)
def test_the_weight_of_each_token(aggregation: Aggregation, weights: list[float]) -> None:
    """Three tokens in two rows, norm length 10; the second token stands in a row of two."""
    found = weights_of(MASK, aggregation)
    assert found[MASK].tolist() == pytest.approx(weights)
    assert not found[~MASK].any()
    parts = torch.cat([weights_of(MASK[i : i + 1], aggregation) for i in range(3)])
    torch.testing.assert_close(parts, found)


def weights_of(mask: Tensor, aggregation: Aggregation) -> Tensor:
    return aggregate_weights(
        mask, aggregation, tokens=torch.tensor(3.0), rows=torch.tensor(2.0), norm_length=10
    )


@pytest.mark.parametrize("aggregation", get_args(Aggregation))
def test_an_empty_minibatch_has_no_weight(aggregation: Aggregation) -> None:
    zero = torch.tensor(0.0)
    found = aggregate_weights(NONE, aggregation, tokens=zero, rows=zero, norm_length=10)
    assert found.tolist() == NONE.float().tolist()


def test_the_value_loss_takes_the_worse_of_free_and_clipped() -> None:
    """Returns 0, old values 1, clip 0.2: 3 -> 9/2 free; 0 -> held at 0.8; 1.1 -> inside."""
    values = torch.tensor([[3.0, 0.0, 1.1]], dtype=torch.float64)
    old, zeros = torch.ones_like(values), torch.zeros_like(values)
    loss, clipped = clipped_value_loss(values, old, zeros, 0.2)
    assert loss[0].tolist() == pytest.approx([4.5, 0.32, 0.605])
    assert clipped.tolist() == [[0, 1, 0]]
    free, none = clipped_value_loss(values, old, zeros, None)
    assert free[0].tolist() == pytest.approx([4.5, 0, 0.605]) and not none.any()


def test_the_advantage_of_a_response_without_tokens_is_that_of_all_its_places() -> None:
    assert sequence_advantage(X, MASK).tolist() == [2, 8, 50]


def test_a_value_per_response_stands_on_its_valid_tokens() -> None:
    found = over_tokens(torch.tensor([5.0, 6.0, 7.0]), MASK)
    assert found.tolist() == [[5, 5, 0], [6, 0, 0], [0, 0, 0]]


def test_whitened_values_have_mean_0_and_unbiased_variance_1() -> None:
    """1, 3, 8: mean 4, variance (9 + 1 + 16) / 2 = 13."""
    found = whiten(X.double(), MASK)
    assert found[MASK].tolist() == pytest.approx([x / math.sqrt(13) for x in (-3, -1, 4)])
    assert not found[~MASK].any()
    alone = torch.zeros_like(MASK)
    alone[1, 0] = True
    assert whiten(X, alone)[1, 0] == 0, "one value has no spread"
    assert not whiten(X, NONE).any()


@pytest.mark.parametrize("value", [0.1, 0.35, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_values_are_whitened_to_exactly_0(value: float, dtype: torch.dtype) -> None:
    """Up to the last place, whatever stands under the mask."""
    x = torch.full((300, 7), value, dtype=dtype)
    mask = torch.arange(7) < (1 + torch.arange(300) % 7)[:, None]
    x[~mask] = -3.0
    assert not whiten(x, mask).any()
    x[3, 2] = x[3, 2].nextafter(x[3, 2] * 2)
    assert not whiten(x, mask).any()
    x[3, 2] = value * 1.1
    assert whiten(x, mask)[3, 2] > 1


@pytest.mark.parametrize(
    ("log_ratio", "expected"),
    [
        ([0.0, 0.0, 0.0], 1.0),
        ([7.0, 7.0], 1.0),
        ([LOG2, 0.0], 0.9),
        ([1000.0, 0.0, 0.0, 0.0], 0.25),
        ([], 1.0),
    ],
)
def test_effective_sample_size(log_ratio: list[float], expected: float) -> None:
    """Weights 2 and 1: 9 / (2 * 5). One weight far above n - 1 others: 1 / n."""
    values = torch.tensor([[*log_ratio, 99.0]])
    mask = torch.tensor([[True] * len(log_ratio) + [False]])
    assert effective_sample_size(values, mask).item() == pytest.approx(expected)


def test_an_aggregation_that_does_not_exist_is_refused() -> None:
    one = torch.tensor(1.0)
    with pytest.raises(UserError, match="no aggregation 'mean' of a term; known: token-mean"):
        aggregate_weights(MASK, "mean", tokens=one, rows=one, norm_length=1)  # type: ignore[arg-type]
