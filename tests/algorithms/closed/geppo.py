"""Closed-form gradient weights of the losses of algorithms/geppo.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def geppo(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """Uniform over M policies: unit weights, epsilon 2 / (M + 1)."""
    centre, ratio = (b.prox_logp - b.behavior_logp).exp(), (logp - b.behavior_logp).exp()
    epsilon = c.epsilon_ppo * 2 / (c.policies + 1)
    return clipped(ratio, b.advantage, centre - epsilon, centre + epsilon)


CLOSED: dict[str, Weights] = {
    "geppo": geppo,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
