"""Closed-form gradient weights of the losses of algorithms/trapo.py."""

from __future__ import annotations

from tests.algorithms.closed.base import Weights
from tests.algorithms.closed.ppo import ppo

CLOSED: dict[str, Weights] = {"trapo": ppo}
"""Without demonstrations it is PPO."""
DENOMINATOR = {"trapo": "prox_logp"}
