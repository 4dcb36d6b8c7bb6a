"""Closed-form gradient weights of the losses of algorithms/opmd.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, length, less_group_mean, moved, of_row


def opmd(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    pull = c.tau * moved(logp, b.behavior_logp, b)
    if c.variant == "simple":
        return b.advantage / (1 + c.tau)
    if c.variant == "kimi_token":
        return b.advantage - c.tau * (logp - b.behavior_logp)
    if c.variant == "kimi":
        return length(b) * (of_row(b) - pull)
    # d/dS of the group's variance: -2 tau (a - mean a) / K, with 1 / (groups K) = 1 / B
    return length(b) * 2 * c.tau * less_group_mean(of_row(b) - pull, b)


CLOSED: dict[str, Weights] = {
    "opmd": opmd,
    "opmd_simple": opmd,
    "opmd_pairwise": opmd,
    "opmd_kimi_token": opmd,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
