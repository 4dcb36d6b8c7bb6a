"""Responses with known log-ratios or ratios, and what a loss makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch, PolicyTerms, Term
from rlkit.interfaces import Correction, PolicyLoss
from rlkit.objective import Objective, loss_value
from rlkit.registry import build
from rlkit.testing.losses import examples, value_and_grad


def double(x: Any) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def rows(log_ratio: Any, advantage: Any, **fields: Any) -> tuple[Tensor, LossBatch]:
    """Responses whose log-ratio to behavior and to prox is this, at log-prob -1: [B, T]."""
    delta = double(log_ratio)
    logp = torch.full_like(delta, -1.0)
    anything = examples(frozenset())[1].rows(torch.zeros(len(delta), dtype=torch.long))
    batch = replace(
        anything,
        mask=torch.ones_like(delta, dtype=torch.bool),
        advantage=double(advantage).expand_as(delta),
        behavior_logp=logp - delta,
        prox_logp=logp - delta,
    )
    return logp, replace(batch, **fields)


def outcome(name: str, logp: Tensor, batch: LossBatch, **fields: Any) -> tuple[Any, Any]:
    """The gradient [B, T] as a list, and the reduced metrics."""
    loss = build("loss", name, **fields)
    return value_and_grad(loss, logp, batch)[1].tolist(), loss_value(loss, logp, batch)[1]


def near(expected: Any) -> Any:
    """Nested lists, to 1e-9."""
    return [pytest.approx(row, abs=1e-12, rel=1e-9) for row in expected]


def stored_rows(ratio: Any, advantage: Any, replayed: list[int]) -> tuple[Tensor, LossBatch]:
    """Responses whose ratio to behavior and to prox is this, at log-prob -1: [B, T].

    The weights lag: the fresh ones are old, and stored ones are new.
    """
    delta = double(ratio).log()
    logp = torch.full_like(delta, -1.0)
    anything = examples(frozenset())[1].rows(torch.zeros(len(delta), dtype=torch.long))
    return logp, replace(
        anything,
        mask=torch.ones_like(delta, dtype=torch.bool),
        advantage=double(advantage).expand_as(delta),
        behavior_logp=logp - delta,
        prox_logp=logp - delta,
        age=1 - torch.tensor(replayed),
        replayed=torch.tensor(replayed).bool(),
    )


def old_and_new() -> tuple[Tensor, LossBatch]:
    """One new response of two tokens, and two replayed ones."""
    ratio = [[1.1, 1.5], [0.5, 1.0], [0.5, 3.0]]
    return stored_rows(ratio, [[1.0], [-1.0], [2.0]], [0, 1, 1])


def terms_of(
    loss: PolicyLoss[Any], logp: Tensor, batch: LossBatch, correction: Correction[Any] | None
) -> dict[str, Term]:
    stack = [] if correction is None else [("it", correction)]
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    out = Objective(loss, corrections=stack).output(policy, batch, torch.ones_like(batch.expert))
    return {term.name: term for term in out.terms}
