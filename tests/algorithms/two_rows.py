"""Two responses with known log-ratios, for weights worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.registry import build
from rlkit.testing.losses import examples, value_and_grad

DELTA = torch.tensor([[0.5, -0.2, 9.0], [-0.1, -0.2, -0.3]], dtype=torch.float64)


MASK = torch.tensor([[True, True, False], [True, True, True]])


SUM, MEAN = (0.3, -0.6), (0.15, -0.2)


GARBAGE = 50.0


def two_rows(
    advantage: list[Any], delta: Tensor = DELTA, mask: Tensor = MASK
) -> tuple[Tensor, LossBatch]:
    """Two responses with these log-ratios to prox; sums 0.3 and -0.6, means 0.15 and -0.2."""
    logp, batch = examples(frozenset())
    index = torch.tensor([0, 1])
    logp, batch = logp[index, :3], batch.rows(index)
    given = torch.tensor(advantage, dtype=torch.float64)
    given = given if given.dim() == 2 else given[:, None].expand(2, 3)
    return logp, replace(
        batch,
        mask=mask,
        advantage=torch.where(mask | ~mask.any(-1, keepdim=True), given, GARBAGE),
        prox_logp=logp - delta,
        behavior_logp=logp + torch.nan,
    )


def pushes(name: str, advantage: list[Any], **fields: Any) -> Tensor:
    """Minus the gradient, times the two responses of the mean: [2, 3]."""
    logp, batch = two_rows(advantage)
    gradient = value_and_grad(build("loss", name, **fields), logp, batch)[1]
    assert gradient[0, 2] == 0
    return -2 * gradient


def value(name: str, advantage: list[Any], **fields: Any) -> float:
    logp, batch = two_rows(advantage)
    return float(value_and_grad(build("loss", name, **fields), logp, batch)[0])


def same(found: Tensor, first: float, second: float) -> None:
    """One weight on all tokens of a response."""
    assert found[0, :2].tolist() == pytest.approx([first] * 2)
    assert found[1].tolist() == pytest.approx([second] * 3)
