"""What a step logs, by hand."""

from __future__ import annotations

import pytest
import torch

from rlkit.training.metrics import explained_variance


def test_a_spread_of_the_returns_that_is_rounding_alone_explains_nothing() -> None:
    """Returns are advantages plus values: equal ones come out with the rounding of the values."""
    values = torch.linspace(-1, 1, 8)[None]
    rounded = values - values + 1e-9 * torch.arange(8.0)
    mask = torch.ones(1, 8, dtype=torch.bool)
    assert explained_variance(values, rounded, mask) == 0.0
    assert explained_variance(values, values, mask) == 1.0
    assert explained_variance(values, 2 * values, mask) == pytest.approx(0.75)
