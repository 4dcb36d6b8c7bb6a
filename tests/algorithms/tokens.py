"""One response of tokens with known log-ratios, for weights worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import examples, value_and_grad

LOGP = -1.25


LOG_RATIO = [-1.0, -0.1, 0.0, 0.1, 1.0]


LOW, DIP, HOP, HIGH = (math.exp(x) for x in (-1.0, -0.1, 0.1, 1.0))


RATIO = [LOW, DIP, 1.0, HOP, HIGH]


def tokens(
    log_ratio: list[float] | Tensor, advantage: list[float] | float
) -> tuple[Tensor, LossBatch]:
    """One response whose tokens have these log-ratios to both policies."""
    delta = torch.as_tensor(log_ratio, dtype=torch.float64)[None]
    logp = torch.full_like(delta, LOGP)
    row = examples(frozenset())[1].rows(torch.tensor([0]))
    return logp, replace(
        row,
        mask=torch.ones(delta.shape, dtype=torch.bool),
        advantage=torch.as_tensor(advantage, dtype=torch.float64).expand(delta.shape),
        behavior_logp=logp - delta,
        prox_logp=logp - delta,
    )


def pushes(name: str, logp: Tensor, batch: LossBatch, **fields: Any) -> Tensor:
    """The gradient weight g of each token: minus the gradient of the summed terms."""
    loss = build("loss", name, aggregation="token-sum", **fields)
    return -value_and_grad(loss, logp, batch)[1][0]


def total(name: str, logp: Tensor, batch: LossBatch, **fields: Any) -> float:
    loss = build("loss", name, aggregation="token-sum", **fields)
    return float(value_and_grad(loss, logp, batch)[0])


def metric(name: str, logp: Tensor, batch: LossBatch, key: str, **fields: Any) -> float:
    return loss_value(build("loss", name, **fields), logp, batch)[1][key]


MOVES = [(0.5, 0.75), (0.5, 0.6), (0.5, 0.5), (0.5, 0.4), (0.5, 0.25), (0.001, 0.1)]


def moved(advantage: float, pairs: list[tuple[float, float]] = MOVES) -> tuple[Tensor, LossBatch]:
    mu, pi = torch.tensor(pairs, dtype=torch.float64).log().unbind(-1)
    _, batch = tokens(pi - mu, advantage)
    return pi[None], replace(batch, behavior_logp=mu[None], prox_logp=mu[None] + torch.nan)
