"""Random draws and falling shares that depend only on their arguments."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

DIGITS = 12
"""Decimals kept when a share is computed, so that 1 - 3 * 0.1 is 0.7 and zero is zero."""


def staircase(step: int, start: int, interval: int, decrement: float, floor: float) -> float:
    """max(1 - decrement ceil(max(step - start, 0) / interval), floor), without rounding noise."""
    falls = math.ceil(max(step - start, 0) / interval)
    return round(max(1 - decrement * falls, floor), DIGITS)


def hash_uniform(x: Tensor) -> Tensor:
    """A number in [0, 1) for each entry of x, decided by its value alone.

    A random choice by it does not depend on order, padding or micro-batches, and repeats on resume.
    """
    scaled = x.detach().double() * 12345.678901 + 0.6180339887
    return torch.frac(torch.frac(scaled.abs()) * 97531.2468)


def stream_seed(seed: int, stream: str, *index: int) -> int:
    """A 63-bit seed for a named stream at a position: every random draw of a run starts here."""
    text = f"{seed}/{stream}/" + "/".join(map(str, index))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream_rng(seed: int, stream: str, *index: int) -> np.random.Generator:
    """A numpy generator for a named stream at a position."""
    return np.random.default_rng(stream_seed(seed, stream, *index))
