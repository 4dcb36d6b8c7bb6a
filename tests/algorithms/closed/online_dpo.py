"""Closed-form gradient weights of the loss of algorithms/online_dpo.py."""

from __future__ import annotations

import torch

from tests.algorithms.closed.base import Weights
from tests.algorithms.closed.preference import on_pairs

dpo = on_pairs(lambda h, p, beta: -beta * torch.sigmoid(-beta * h))


CLOSED: dict[str, Weights] = {"online_dpo": dpo}
DENOMINATOR = dict.fromkeys(CLOSED, "anchor:base")
