"""The greedy baseline by hand."""

from __future__ import annotations

from dataclasses import replace

import torch

from rlkit.registry import build
from tests.algorithms.advantages.hand import batch_of


def test_remax_subtracts_the_greedy_reward_from_what_is_to_come() -> None:
    """Token rewards -1 (a KL penalty) and 3: returns 2 and 3, less the greedy 1/2."""
    b = batch_of([2, 0], [0, 0])
    b = replace(
        b,
        token_reward=torch.tensor([[-1, 3], [0, 0]]).double(),
        greedy_reward=torch.tensor([0.5, 0.25]).double(),
        mask=torch.tensor([[True, True], [True, False]]),
    )
    out = build("advantage", "remax")(b)
    assert out.advantage.tolist() == [[1.5, 2.5], [-0.25, 0]]
    assert out.returns.tolist() == [[2, 3], [0, 0]]
    assert build("advantage", "remax").needs_greedy
