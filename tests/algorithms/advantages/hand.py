"""Small batches for advantages worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.registry import build
from rlkit.testing.advantages import examples

REWARDS = [1.0, 0.0, 0.0, 3.0]
STD = 2.0**0.5  # of them: mean 1, squares 0 + 1 + 1 + 4 = 6, over n - 1 = 3
BIASED = 1.5**0.5  # over n = 4
LME = math.log((2 + math.e + math.e**3) / 4)  # the log of the mean of their exponentials
LME_HALF = 0.5 * math.log((2 + math.e**2 + math.e**6) / 4)  # the same at temperature 1/2


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


def row(*values: float) -> Tensor:
    """One response's numbers, [1, T]."""
    return torch.tensor([values], dtype=torch.float64)


def lengths(out_of: list[int]) -> Tensor:
    """A mask of responses with so many of two tokens valid."""
    return torch.arange(2) < torch.tensor(out_of)[:, None]
