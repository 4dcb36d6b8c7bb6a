"""Closed-form gradient weights of the losses of algorithms/dppo.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights


def dppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    pi, mu = logp.exp().clamp(max=1 - 1e-8), b.behavior_logp.exp().clamp(max=1 - 1e-8)
    up, down = b.advantage > 0, b.advantage < 0
    if c.divergence == "tv":
        dropped = (up & (pi - mu > c.delta_high)) | (down & (mu - pi > c.delta_low))
    elif c.divergence == "ipo":
        dropped = (pi - mu).abs() > c.delta_high
    else:
        kl = mu * (mu / pi).log() + (1 - mu) * ((1 - mu) / (1 - pi)).log()
        dropped = (up & (pi > mu) & (kl > c.delta_high)) | (down & (pi < mu) & (kl > c.delta_low))
    delta = logp - b.behavior_logp
    return delta.exp() * b.advantage * ~dropped - 2 * c.log_ratio_sq_coef * delta


CLOSED: dict[str, Weights] = {
    "dppo": dppo,
    "dppo_kl": dppo,
    "dppo_ipo": dppo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
