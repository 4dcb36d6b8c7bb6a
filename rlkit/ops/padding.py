"""Rows of different lengths in one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pad(rows: Sequence[Tensor], length: int, value: float = 0.0) -> Tensor:
    """Stack [T_i] rows into a right-padded [B, length] tensor."""
    out = torch.full((len(rows), length), value, dtype=rows[0].dtype if rows else torch.float32)
    for i, row in enumerate(rows):
        out[i, : row.shape[0]] = row
    return out
