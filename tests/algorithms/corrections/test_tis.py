"""Truncated and masked importance weights by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import PolicyTerms
from rlkit.registry import build
from rlkit.testing.losses import examples

RATIOS = torch.tensor([[0.25, 4.0, 1.0], [1.5, 1.5, 1.5]], dtype=torch.float64)


def weight(expert: bool = False, **fields: Any) -> Tensor:
    """Weights of two responses with the ratios prox / behavior above; the first has two tokens."""
    logp, batch = examples(frozenset())
    rows = torch.tensor([0, 1])
    logp, batch = logp[rows, :3], batch.rows(rows)
    batch = replace(
        batch,
        mask=torch.tensor([[True, True, False], [True, True, True]]),
        prox_logp=logp,
        behavior_logp=logp - RATIOS.log(),
        expert=torch.tensor([expert, False]),
    )
    corrected = build("correction", "tis", **fields)(
        PolicyTerms(logp=logp + 1, entropy=torch.zeros_like(logp)), batch
    )
    assert corrected.batch is batch, "tokens leave by weight 0, not by the mask"
    return torch.where(batch.mask, corrected.weight, 0.0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [[0.25, 2, 0], [1.5, 1.5, 1.5]]),
        ({"is_max": None}, [[0.25, 4, 0], [1.5, 1.5, 1.5]]),
        ({"is_max": None, "log_weight_clamp": math.log(3)}, [[1 / 3, 3, 0], [1.5, 1.5, 1.5]]),
        ({"is_min": 0.5}, [[0.5, 2, 0], [1.5, 1.5, 1.5]]),
        ({"mode": "mask"}, [[0.25, 0, 0], [1.5, 1.5, 1.5]]),
        ({"mode": "mask", "is_min": 0.5}, [[0, 0, 0], [1.5, 1.5, 1.5]]),
        ({"level": "sequence"}, [[1, 1, 0], [2, 2, 2]]),
        ({"level": "sequence", "is_max": 5.0}, [[1, 1, 0], [3.375, 3.375, 3.375]]),
        ({"level": "sequence", "mode": "mask"}, [[1, 1, 0], [0, 0, 0]]),
    ],
)
def test_weights(fields: dict[str, Any], expected: list[list[float]]) -> None:
    torch.testing.assert_close(weight(**fields), torch.tensor(expected, dtype=torch.float64))


def test_a_demonstration_has_no_behaviour_policy_and_gets_weight_one() -> None:
    assert weight(expert=True)[0].tolist() == [1, 1, 0]
