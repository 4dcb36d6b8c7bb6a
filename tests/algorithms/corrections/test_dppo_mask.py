"""DPPO's trust region as a mask, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.registry import build
from rlkit.testing import check_correction
from tests.algorithms.corrections.hand import ONES, batch_of, tensor, weight_of


def probabilities(
    p: list[float], q: list[float], advantage: list[float]
) -> tuple[Tensor, LossBatch]:
    """The second response has these probabilities under the policy and the behavior policy."""
    batch = batch_of(torch.ones(2, 3, dtype=torch.float64))[1]
    policy = torch.stack([batch.behavior_logp[0], tensor(p)[0].log()])
    behavior = torch.stack([batch.behavior_logp[0], tensor(q)[0].log()])
    return policy, replace(batch, behavior_logp=behavior, advantage=tensor([1.0] * 3, advantage))


@pytest.mark.parametrize(
    ("p", "q", "advantage", "expected"),
    [
        ([0.6, 0.6, 0.6], [0.35, 0.45, 0.9], [1, 1, 1], [0, 1, 1]),
        ([0.3, 0.3, 0.3], [0.45, 0.35, 0.1], [-1, -1, -1], [0, 1, 1]),
        ([0.3, 0.6, 0.3], [0.45, 0.35, 0.45], [0, 0, 1], [0, 1, 1]),
        ([1e-3, 1e-3, 0.9], [1e-6, 1e-1, 0.6], [1, -1, 1], [1, 1, 0]),
    ],
)
def test_dppo_bounds_the_difference_of_probabilities(
    p: list[float], q: list[float], advantage: list[float], expected: list[float]
) -> None:
    """delta_high 0.2, delta_low 0.1. The last row: a rare token may grow a thousandfold."""
    logp, batch = probabilities(p, q, advantage)
    found = weight_of("dppo_mask", logp, batch, delta_low=0.1, delta_high=0.2)
    assert found.tolist() == [ONES[0], expected]


def test_dppo_bounds_the_binary_divergence() -> None:
    """KL((q, 1 - q) || (p, 1 - p)) = 0.5 log(0.5 / 0.7) + 0.5 log(0.5 / 0.3) = 0.0872 both ways
    round 1/2.
    """
    kl = 0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.3)
    for advantage, p, field in ((1.0, 0.7, "delta_high"), (-1.0, 0.3, "delta_low")):
        logp, batch = probabilities([p, 1 - p, p], [0.5] * 3, [advantage] * 3)
        other = {"delta_high": "delta_low", "delta_low": "delta_high"}[field]
        for delta, kept in ((kl * 0.99, 0.0), (kl * 1.01, 1.0)):
            fields = {"divergence": "kl", field: delta, other: 10.0 if kept == 0 else 1e-6}
            found = weight_of("dppo_mask", logp, batch, **fields)
            assert found[1].tolist() == [kept, 1, kept], (field, delta)


@pytest.mark.parametrize("divergence", ["tv", "kl"])
def test_dppo_keeps_demonstrations_and_the_contract(divergence: str) -> None:
    logp, batch = probabilities([0.9] * 3, [0.1] * 3, [1] * 3)
    shown = replace(batch, expert=torch.tensor([False, True]))
    assert weight_of("dppo_mask", logp, batch, divergence=divergence)[1].sum() == 0
    assert weight_of("dppo_mask", logp, shown, divergence=divergence)[1].sum() == 3
    check_correction(build("correction", "dppo_mask", divergence=divergence))
