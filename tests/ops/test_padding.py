"""Rows of different lengths in one tensor."""

from __future__ import annotations

import pytest
import torch

from rlkit.ops import pad


@pytest.mark.parametrize(
    ("rows", "length", "value", "found"),
    [
        ([[1, 2], [], [3]], 3, 0, [[1, 2, 0], [0, 0, 0], [3, 0, 0]]),
        ([[1], [2, 3]], 2, -1, [[1, -1], [2, 3]]),
        ([], 2, 0, []),
    ],
)
def test_rows_are_padded_on_the_right(
    rows: list[list[int]], length: int, value: int, found: list[list[int]]
) -> None:
    padded = pad([torch.tensor(row, dtype=torch.int64) for row in rows], length, value)
    assert padded.tolist() == found and padded.shape == (len(rows), length)
    if rows:
        assert padded.dtype == torch.int64
