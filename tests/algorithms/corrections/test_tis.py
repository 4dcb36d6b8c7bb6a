"""Truncated and masked importance weights by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.ops import masked_ratio
from rlkit.registry import build
from rlkit.testing import check_correction
from rlkit.testing.losses import examples
from tests.algorithms.corrections.hand import apply, batch_of, weight_of

RATIOS = torch.tensor([[0.25, 4.0, 9.0], [1.5, 1.5, 1.5]], dtype=torch.float64)


def weight(name: str = "tis", expert: bool = False, **fields: Any) -> Tensor:
    """Weights of two responses with the ratios prox / behavior above; the first has two tokens."""
    logp, batch = batch_of(RATIOS, expert=torch.tensor([expert, False]))
    return weight_of(name, logp + 1, batch, **fields)


def agree(found: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


TOKEN = [[0.25, 4, 0], [1.5, 1.5, 1.5]]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [[0.25, 2, 0], [1.5, 1.5, 1.5]]),
        ({"is_max": None}, TOKEN),
        ({"mode": "none", "is_min": 1.0}, TOKEN),
        ({"is_max": None, "is_log_clamp": math.log(3)}, [[1 / 3, 3, 0], [1.5, 1.5, 1.5]]),
        ({"mode": "none", "is_log_clamp": math.log(3)}, [[1 / 3, 3, 0], [1.5, 1.5, 1.5]]),
        ({"is_min": 0.5}, [[0.5, 2, 0], [1.5, 1.5, 1.5]]),
        ({"mode": "mask"}, [[0.25, 0, 0], [1.5, 1.5, 1.5]]),
        ({"mode": "mask", "is_min": 0.5}, [[0, 0, 0], [1.5, 1.5, 1.5]]),
        ({"mode": "mask", "is_max": None, "is_min": 1.0}, [[0, 4, 0], [1.5, 1.5, 1.5]]),
        ({"level": "sequence"}, [[1, 1, 0], [2, 2, 2]]),
        ({"level": "sequence", "is_max": 5.0}, [[1, 1, 0], [3.375, 3.375, 3.375]]),
        ({"level": "sequence", "mode": "mask"}, [[1, 1, 0], [0, 0, 0]]),
        ({"level": "geometric"}, [[1, 1, 0], [1.5, 1.5, 1.5]]),
        ({"level": "geometric", "is_max": 1.25}, [[1, 1, 0], [1.25, 1.25, 1.25]]),
    ],
)
def test_weights(fields: dict[str, Any], expected: list[list[float]]) -> None:
    agree(weight(**fields), expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("seq_tis", [[1, 1, 0], [2, 2, 2]]),
        ("mis", [[1, 1, 0], [0, 0, 0]]),
        ("icepop", [[0, 4, 0], [1.5, 1.5, 1.5]]),
    ],
)
def test_named_settings(name: str, expected: list[list[float]]) -> None:
    agree(weight(name), expected)


def test_icepop_keeps_up_to_five_and_mis_up_to_three() -> None:
    k = torch.tensor([[4.9, 5.1, 1.0], [1.4, 1.4, 1.4]], dtype=torch.float64)
    agree(weight_of("icepop", *batch_of(k)), [[4.9, 0, 0], [1.4, 1.4, 1.4]])
    agree(weight_of("mis", *batch_of(k)), [[0, 0, 0], [2.744] * 3])


def test_normalized_weights_have_mean_one() -> None:
    """Token weights .25, 2, 1.5 x 3: mean 1.35 after the truncation. A response's weights 1 and 2
    have the mean 3/2, whatever the lengths.
    """
    agree(
        weight(is_batch_normalize=True),
        [[0.25 / 1.35, 2 / 1.35, 0], [1.5 / 1.35] * 3],
    )
    agree(weight(level="sequence", is_batch_normalize=True), [[2 / 3, 2 / 3, 0], [4 / 3] * 3])
    agree(weight(level="geometric", is_batch_normalize=True), [[0.8, 0.8, 0], [1.2] * 3])


def test_weights_that_are_all_zero_are_not_divided_by_their_mean() -> None:
    found = weight(mode="mask", is_min=8.0, is_max=9.0, is_batch_normalize=True)
    assert (found == 0).all()


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_normalization_leaves_out_demonstrations_and_empty_responses(level: str) -> None:
    """What stays is one response with equal weights, which become 1."""
    found = weight(expert=True, level=level, is_batch_normalize=True)
    agree(found, [[1, 1, 0], [1, 1, 1]])
    logp, batch = batch_of(RATIOS)
    batch = replace(batch, mask=batch.mask & torch.tensor([[False], [True]]))
    found = weight_of("tis", logp, batch, level=level, is_batch_normalize=True)
    agree(found, [[0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
@pytest.mark.parametrize("mode", ["none", "truncate", "mask"])
def test_every_setting_keeps_the_contract(level: str, mode: str) -> None:
    """A normalized weight sees the whole minibatch, whatever the micro-batches."""
    for normalized in (False, True):
        part = build("correction", "tis", level=level, mode=mode, is_batch_normalize=normalized)
        assert part.scope == ("minibatch" if normalized else "token")
        check_correction(part)


@pytest.mark.parametrize("name", ["tis", "seq_tis", "icepop", "mis"])
def test_fresh_data_are_not_weighed(name: str) -> None:
    logp, batch = batch_of(torch.ones(2, 3, dtype=torch.float64))
    agree(weight_of(name, logp + 1, batch), [[1, 1, 0], [1, 1, 1]])


def test_icepop_with_wide_bounds_is_plain_importance_sampling() -> None:
    logp, batch = examples(frozenset({"prox", "behavior"}))
    icepop = build("correction", "icepop", is_min=1e-6, is_max=1e6, is_log_clamp=None)
    expected = masked_ratio(batch.prox_logp, batch.behavior_logp, batch.mask)
    torch.testing.assert_close(apply(icepop, logp, batch).weight, expected)


def test_a_demonstration_has_no_behavior_policy_and_gets_weight_one() -> None:
    assert weight(expert=True, mode="mask", is_min=1.2)[0].tolist() == [1, 1, 0]


def test_bounds_are_ordered() -> None:
    with pytest.raises(UserError, match=r"is_min=3\.0 must not exceed is_max=2\.0"):
        build("correction", "tis", is_min=3.0)
