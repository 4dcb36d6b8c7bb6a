"""Small batches for advantages worked out by hand."""

from __future__ import annotations

from typing import Any

import torch

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.registry import build
from rlkit.testing.advantages import examples

REWARDS = [1.0, 0.0, 0.0, 3.0]


def estimate(name: str, rewards: list[float], group: list[int], **fields: Any) -> AdvantageOutput:
    """Two-token responses with these rewards."""
    return build("advantage", name, **fields)(batch_of(rewards, group))


def batch_of(rewards: list[float], group: list[int]) -> AdvantageBatch:
    reward = torch.tensor(rewards, dtype=torch.float64)
    n = len(rewards)
    rows = {f: getattr(examples(), f)[:n, :2] for f in ("values", "behavior_logp", "prox_logp")}
    return AdvantageBatch(
        reward=reward,
        rewards={},
        token_reward=torch.stack([torch.zeros(n).double(), reward], -1),
        greedy_reward=torch.zeros(n),
        mask=torch.ones(n, 2, dtype=torch.bool),
        group=torch.tensor(group),
        age=torch.zeros(n, dtype=torch.long),
        expert=torch.zeros(n, dtype=torch.bool),
        **rows,
        anchor_logp={},
    )


def one_a_row(out: AdvantageOutput) -> list[float]:
    assert torch.equal(out.advantage[:, 0], out.advantage[:, 1]), "each token gets the response's"
    values: list[float] = out.advantage[:, 0].tolist()
    return values
