"""HPT by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import value_and_grad
from tests.algorithms.rows import double, near, outcome, rows


@pytest.mark.parametrize(("fields", "weight"), [({}, 1.0), ({"sft_weight": 0.25}, 0.25)])
def test_own_and_shown_tokens_are_averaged_apart(fields: dict[str, float], weight: float) -> None:
    """Two own tokens at ratios 1.1 and 1.5, of which the clip at 1.2 keeps one; a demonstration."""
    logp, batch = rows(double([[1.1], [1.5], [1.0]]).log(), 1.0)
    logp[2] = math.log(0.25)
    batch = replace(batch, expert=torch.tensor([False, False, True]))
    batch.prox_logp[2] = torch.nan
    gradient, metrics = outcome("hpt", logp, batch, **fields)
    assert gradient == near([[-1.1 / 2], [0.0], [-weight]])
    value = -(1.1 + 1.2) / 2 + weight * math.log(4)
    assert metrics["loss"] == pytest.approx(value)


def test_without_demonstrations_it_is_ppo() -> None:
    logp, batch = rows(double([[0.5, 1.0, 3.0]]).log(), [[-1.0, -1.0, -2.0]])
    expected = value_and_grad(build("loss", "ppo"), logp, batch)
    assert close(expected, value_and_grad(build("loss", "hpt"), logp, batch))
