"""Closed-form gradient weights of the losses of algorithms/remix.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from tests.algorithms.closed.base import Weights, clipped


def remix(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    centre = (b.prox_logp - b.behavior_logp).exp()
    ratio = (logp - b.behavior_logp).exp()
    return clipped(ratio, b.advantage, centre - c.epsilon, centre + c.epsilon)


def mix_ppg(logp: Tensor, b: LossBatch, c: Any) -> Tensor:
    """The window's lower bound at 0 or below cuts nothing, clamped or not."""
    moves = c.centre == "prox"
    centre = (b.prox_logp - b.behavior_logp).exp() if moves else torch.ones_like(logp)
    ratio = (logp - b.behavior_logp).exp()
    return clipped(ratio, b.advantage, centre - c.epsilon, centre + c.epsilon)


CLOSED: dict[str, Weights] = {
    "remix": remix,
    "toppo": mix_ppg,
    "offpolicy_grpo": mix_ppg,
}
DENOMINATOR = dict.fromkeys(CLOSED, "behavior_logp")
