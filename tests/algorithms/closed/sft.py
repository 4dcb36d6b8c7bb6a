"""Closed-form gradient weights of the losses of algorithms/sft.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def sft(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    return torch.ones_like(logp)


CLOSED: dict[str, Weights] = {
    "sft": sft,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
