"""Closed-form gradient weights of the losses of algorithms/vespo.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, log_ratio


def vespo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    w = log_ratio(logp, b.prox_logp, b).sum(-1, keepdim=True).exp()
    good = w**c.k_pos * (c.lambda_pos * (1 - w)).exp()
    bad = w**c.k_neg * (c.lambda_neg * (1 - w)).exp()
    return torch.where(b.advantage >= 0, good, bad) * b.advantage


CLOSED: dict[str, Weights] = {
    "vespo": vespo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
