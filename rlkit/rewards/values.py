"""What a reward returned, as numbers; and the error of one that failed on a single completion."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rlkit.errors import UserError


class RowFailed(Exception):
    """A function raised for the completion at `row`; the cause is what it raised."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


def numbers_of(name: str, values: Any, places: Sequence[int]) -> list[float | None]:
    """A reward's return value for the completions at these places of a batch, as plain floats.

    Raises UserError unless it is a list, array or tensor with a finite number or None for each.
    """
    if not isinstance(values, (list, tuple, np.ndarray, Tensor)):
        raise UserError(
            f"reward '{name}' returned {_short(values)}; it must return a list with one number or "
            "None per completion"
        )
    rows = list(values)
    if len(rows) != len(places):
        raise UserError(
            f"reward '{name}' returned {len(rows)} values for {len(places)} completions; "
            "it must return one number or None per completion"
        )
    return [_number(name, value, place) for place, value in zip(places, rows, strict=True)]


def _number(name: str, value: Any, index: int) -> float | None:
    if value is None:
        return None
    if isinstance(value, (np.generic, np.ndarray, Tensor)) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise UserError(
            f"reward '{name}' returned {_short(value)} for completion {index}; "
            "it must be a number or None"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(
            f"reward '{name}' returned {number} for completion {index}; it must be finite, "
            "or None if the reward does not apply"
        )
    return number


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return f"{text[:60]} ({type(value).__name__})"
