"""OAPL by hand, and the limits of its baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import AdvantageBatch, LossBatch
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.one_group import BEHAVIOR, TWO, responses


@pytest.mark.parametrize(
    ("name", "fields", "value"),
    [
        ("oapl", {"beta2": 0.5}, ((-0.5 - 1) ** 2 + (1 + 1) ** 2) / 2),
        ("oapl", {"beta2": 0.5, "log_ratio_clamp": 0.5}, (1 + 1.75**2) / 2),
    ],
)
def test_values_of_two_responses_that_compare_a_reward_with_a_log_ratio(
    name: str, fields: dict[str, float], value: float
) -> None:
    loss = build("loss", name, **fields)
    logp, batch = responses(TWO, [1.0, -1.0], to=loss.needs or BEHAVIOR)
    assert float(loss_value(loss, logp, batch)[0]) == pytest.approx(value)


def advantage_of(name: str, batch: LossBatch, **fields: float) -> Tensor:
    """The advantage [B, T] that a part makes of the batch's rewards."""
    zeros = torch.zeros_like(batch.behavior_logp)
    given = AdvantageBatch(
        reward=batch.reward,
        rewards={},
        token_reward=zeros,
        greedy_reward=torch.zeros_like(batch.reward),
        mask=batch.mask,
        group=batch.group,
        age=batch.age,
        expert=batch.expert,
        values=zeros,
        behavior_logp=batch.behavior_logp,
        prox_logp=batch.prox_logp,
        anchor_logp={},
    )
    advantage: Tensor = build("advantage", name, **fields)(given).advantage
    return advantage


@pytest.mark.parametrize(
    ("beta1", "baseline"), [(1e7, lambda r: r.mean(-1)), (1e-4, lambda r: r.amax(-1))]
)
def test_oapl_centres_on_the_mean_for_large_beta1_and_on_the_best_for_small(
    beta1: float, baseline: Any
) -> None:
    """V* = beta1 log mean exp(R / beta1); examples hold R - mean in groups of four."""
    logp, batch = examples(BEHAVIOR)
    by_hand = batch.reward - baseline(batch.reward.view(2, 4)).repeat_interleave(4)
    direct = replace(batch, advantage=by_hand[:, None].expand_as(logp))
    composed = replace(batch, advantage=advantage_of("oapl", batch, beta1=beta1))
    loss = build("loss", "oapl", beta2=0.2)
    for a, b in zip(
        value_and_grad(loss, logp, composed), value_and_grad(loss, logp, direct), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=3e-4)
