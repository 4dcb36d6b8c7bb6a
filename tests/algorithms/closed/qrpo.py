"""Closed-form gradient weights of the losses of algorithms/qrpo.py."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, length, moved


def qrpo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """2 beta (R_q - beta log beta - 1 - beta S) on each token."""
    rewards = b.reward.tolist()
    groups = [rewards[:4]] * 4 + [rewards[4:]] * 4
    share = [
        sum(other <= own for other in group) / 4 for own, group in zip(rewards, groups, strict=True)
    ]
    target = torch.tensor(share).double()[:, None] - c.beta * math.log(c.beta) - 1
    return length(b) * 2 * c.beta * (target - c.beta * moved(logp, b.anchor_logp["base"], b))


CLOSED: dict[str, Weights] = {"qrpo": qrpo}
DENOMINATOR = {"qrpo": "anchor:base"}
