"""GePPO by hand: its window and its weights by age."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.errors import UserError
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.one_group import BEHAVIOR, PROX


@pytest.mark.parametrize(
    ("name", "fields", "clip"),
    [
        ("geppo", {"policies": 1}, 0.2),
        ("geppo", {"epsilon_ppo": 0.3}, 0.15),
    ],
)
def test_on_fresh_data_the_losses_with_two_ratios_are_ppo(
    name: str, fields: dict[str, Any], clip: float
) -> None:
    """geppo's window is 2 / (M + 1) as wide: it expects M policies, 3 by default, in the batch."""
    logp, batch = examples(BEHAVIOR | PROX)
    fresh = replace(batch, prox_logp=batch.behavior_logp, age=batch.age * 0)
    ppo = build("loss", "ppo", clip_low=clip, clip_high=clip)
    found = value_and_grad(build("loss", name, **fields), logp, fresh)
    assert close(found, value_and_grad(ppo, logp, fresh))


@pytest.mark.parametrize(
    ("fields", "epsilon", "weights"),
    [
        ({}, 0.1, [1, 1, 1, 1]),
        ({"policies": 1}, 0.2, [1, 1, 1, 1]),
        ({"policies": 4, "epsilon_ppo": 0.3}, 0.12, [1, 1, 1, 1]),
        ({"policies": 4, "mixture": "optimal"}, 0.1, [1.6, 1.2, 0.8, 0.4]),
        ({"policies": 3, "mixture": "optimal"}, 0.1, [1, 1, 1, 1]),
        (
            {"policies": 2, "mixture": "optimal", "batch_multiple": 1.5, "kappa": 0.0},
            0.2 / (1.5 - math.sqrt(1 / 12)),
            [1 + math.sqrt(1 / 3), *[1 - math.sqrt(1 / 3)] * 3],
        ),
    ],
)
def test_geppo_is_remix_with_a_narrower_window_and_a_weight_by_age(
    fields: dict[str, Any], epsilon: float, weights: list[float]
) -> None:
    """epsilon_ppo over the mean place of the data; M nu_age, the oldest for still older data."""
    logp, batch = examples(BEHAVIOR | PROX)
    batch = replace(batch, age=torch.arange(8) % 5)
    loss = build("loss", "geppo", aggregation="token-sum", **fields)
    found = value_and_grad(loss, logp, batch)[1]
    remix = value_and_grad(
        build("loss", "remix", aggregation="token-sum", epsilon=epsilon), logp, batch
    )[1]
    by_age = torch.tensor([*weights, weights[-1]], dtype=torch.float64)[batch.age]
    assert close([found], [by_age[:, None] * remix])
    assert loss_value(loss, logp, batch)[1]["weight"] == pytest.approx(float(by_age.mean()))


def test_geppo_refuses_fewer_policies_than_batches() -> None:
    with pytest.raises(UserError, match=r"policies=2 must be at least batch_multiple=3\.0"):
        build("loss", "geppo", mixture="optimal", policies=2, batch_multiple=3.0)
    assert build("loss", "geppo", policies=2, batch_multiple=3.0).config.policies == 2
