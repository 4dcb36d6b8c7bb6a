"""The buffer's importance weights in the loss."""

from __future__ import annotations

import torch

from rlkit.batch import REPLAY_WEIGHT
from rlkit.registry import build
from tests.algorithms.corrections.hand import ONES, batch_of, weight_of


def test_a_response_weighs_what_its_buffer_says_and_else_one() -> None:
    logp, batch = batch_of(
        torch.ones(2, 3).double(), extras={REPLAY_WEIGHT: torch.tensor([0.25, 0.0])}
    )
    assert weight_of("replay_weight", logp, batch).tolist() == [[0.25, 0.25, 0], ONES[1]]


def test_without_weights_nothing_changes() -> None:
    logp, batch = batch_of(torch.ones(2, 3).double())
    assert weight_of("replay_weight", logp, batch).tolist() == ONES
    assert build("correction", "replay_weight").needs == frozenset()
