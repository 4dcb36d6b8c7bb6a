"""Closed-form gradient weights of the losses of algorithms/gmpo.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, length, log_ratio


def gmpo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    delta = log_ratio(logp, b.prox_logp, b)
    good, bad = b.advantage > 0, b.advantage < 0
    held = torch.where(good, delta.clamp(max=c.clip_high), delta.clamp(min=-c.clip_low))
    mean = (held * b.mask).sum(-1, keepdim=True) / length(b)
    cut = (good & (delta > c.clip_high)) | (bad & (delta < -c.clip_low))
    return b.advantage * mean.exp() * ~cut


CLOSED: dict[str, Weights] = {
    "gmpo": gmpo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "prox_logp")
