"""Closed-form gradient weights of the losses of algorithms/sapo.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def sapo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    r = (logp - b.prox_logp).exp()
    tau = torch.where(b.advantage > 0, torch.tensor(c.tau_pos).to(r), c.tau_neg)
    p = 1 / (1 + (-tau * (r - 1)).exp())
    return 4 * p * (1 - p) * r * b.advantage


CLOSED: dict[str, Weights] = {
    "sapo": sapo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
