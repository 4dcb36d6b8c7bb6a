"""Supervised finetuning by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.registry import build
from tests.algorithms.rows import double, near, outcome, rows


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({}, (1, 1)),
        ({"weighting": "phi"}, (0.25, 0.1875)),
        ({"weighting": "probability"}, (0.5, 0.25)),
        ({"only_expert": True}, (0, 2)),
    ],
)
def test_sft_imitates_whatever_the_advantage(
    fields: dict[str, Any], weights: tuple[float, float]
) -> None:
    """Probabilities 1/2 and 1/4; only_expert halves the count too."""
    _, batch = rows([[0.3], [0.4]], [[-3.0], [torch.nan]])
    logp = double([[0.5], [0.25]]).log()
    batch = replace(batch, expert=torch.tensor([False, True]))
    assert outcome("sft", logp, batch, **fields)[0] == near([[-w / 2] for w in weights])
    assert build("loss", "sft").needs == frozenset()
