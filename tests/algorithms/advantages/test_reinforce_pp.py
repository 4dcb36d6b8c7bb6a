"""REINFORCE++ by hand, with and without a group baseline."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch

from algorithms.advantages.reinforce_pp import return_to_go
from rlkit.registry import build
from tests.algorithms.advantages.hand import batch_of, row


def test_the_discounted_return_skips_masked_tokens() -> None:
    assert return_to_go(row(1, 0, 8), torch.ones(1, 3).bool(), 0.5).tolist() == [[3, 4, 8]]
    mask = torch.tensor([[True, False, True, True, False]])
    assert return_to_go(row(1, 99, 0, 8, 99), mask, 0.5).tolist() == [[3, 0, 4, 8, 0]]


@pytest.mark.parametrize("eps", [1e-8, 1.0])
def test_reinforce_pp_whitens_returns_over_every_valid_token(eps: float) -> None:
    """Rewards 1 and 4 on two tokens each, gamma 1/2: returns 1/2, 1, 2, 4."""
    b = batch_of([1, 4], [0, 1])
    out = build("advantage", "reinforce_pp", gamma=0.5, whiten_eps=eps)(b)
    values = [0.5, 1, 2, 4]
    scale = (statistics.variance(values) + eps) ** 0.5
    assert out.returns.flatten().tolist() == values
    assert out.advantage.flatten().tolist() == pytest.approx(
        [(v - statistics.mean(values)) / scale for v in values]
    )


@pytest.mark.parametrize("eps", [1e-8, 1.0])
def test_reinforce_pp_baseline_whitens_group_differences_over_tokens(eps: float) -> None:
    """Rewards 1 0 | 4 4 and a lonely 2; the second response has one token."""
    mask = torch.ones(5, 2).bool()
    mask[1, 1] = False
    b = replace(batch_of([1, 0, 4, 4, 2], [0, 0, 1, 1, 2]), mask=mask)
    for singleton, last in (("raw_score", 2.0), ("zero", 0.0)):
        name = "reinforce_pp_baseline"
        out = build("advantage", name, whiten_eps=eps, singleton=singleton)(b)
        tokens = [0.5, 0.5, -0.5, 0, 0, 0, 0, last, last]
        scale = (statistics.variance(tokens) + eps) ** 0.5
        mean = statistics.mean(tokens)
        found = out.advantage[mask].tolist()
        assert found == pytest.approx([(v - mean) / scale for v in tokens])
        assert out.advantage[1, 1] == 0 and out.returns[4].tolist() == [2, 2]
