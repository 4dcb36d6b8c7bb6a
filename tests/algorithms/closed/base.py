"""What the closed forms share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rlkit.batch import LossBatch

Weights = Callable[[Tensor, LossBatch, Any], Tensor]
"""Log-probs, batch and config -> g [B, T], with dL/dlogp = -share * g."""


def clipped(ratio: Tensor, a: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """r A, except 0 where A > 0 and r > high and where A < 0 and r < low."""
    return ratio * a * ~((a > 0) & (ratio > high)) * ~((a < 0) & (ratio < low))
