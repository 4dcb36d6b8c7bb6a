"""Every loss that learns from demonstrations: they need no behavior policy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch, PolicyTerms
from rlkit.objective import Objective, loss_value
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.rows import double


def mixed(seed: int = 0) -> tuple[Tensor, LossBatch]:
    """The example batch with rows 0 and 5 as demonstrations, of which only the tokens are known."""
    logp, batch = examples(frozenset(), seed=seed)
    expert = torch.zeros_like(batch.expert)
    expert[torch.tensor([0, 5])] = True
    unknown = expert[:, None] & batch.mask
    return logp, replace(
        batch,
        expert=expert,
        behavior_logp=torch.where(unknown, torch.nan, batch.behavior_logp),
        prox_logp=torch.where(unknown, torch.nan, batch.prox_logp),
    )


LEARNERS: list[tuple[str, dict[str, Any]]] = [
    ("luffy", {}),
    ("luffy", {"shaping_gamma": None, "on_policy_clip": False}),
    ("sft", {"weighting": "phi"}),
    ("sft", {"weighting": "probability", "only_expert": True}),
    ("chord", {}),
    ("chord", {"aggregation": "seq-mean-token-mean"}),
    ("sil", {}),
    ("sil", {"is_clip": 1.0}),
    ("trapo", {"floor": 0.5}),
    ("trapo", {"on_policy_clip": False}),
]


@pytest.mark.parametrize(("name", "fields"), LEARNERS)
def test_demonstrations_need_no_behavior_and_any_split_gives_the_same_gradient(
    name: str, fields: dict[str, Any]
) -> None:
    loss = build("loss", name, **fields)
    assert loss.accepts_expert and loss.scope == "token"
    logp, batch = mixed()
    value, gradient = value_and_grad(loss, logp, batch)
    assert value.isfinite() and gradient.isfinite().all()
    leaf = logp.clone().requires_grad_()

    def forward(index: Tensor) -> PolicyTerms:
        return PolicyTerms(logp=leaf[index], entropy=torch.zeros_like(logp[index]))

    total = Objective(loss).backward(forward, batch, torch.split(torch.arange(8), 3)).value
    assert leaf.grad is not None
    assert close((value, gradient), (double(total), leaf.grad))
    _, metrics = loss_value(loss, logp, batch)
    assert all(math.isfinite(x) for x in metrics.values())


@pytest.mark.parametrize(("name", "fields"), LEARNERS)
def test_demonstrations_of_any_probability_and_garbage_under_their_mask(
    name: str, fields: dict[str, Any]
) -> None:
    loss = build("loss", name, **fields)
    logp, batch = mixed()
    spoiled = replace(batch, advantage=torch.where(batch.mask, batch.advantage, 1e4))
    found = value_and_grad(loss, torch.where(batch.mask, logp, 1e4), spoiled)
    assert close(value_and_grad(loss, logp, batch), found)
    single = {f: getattr(batch, f).float() for f in ("advantage", "behavior_logp", "prox_logp")}
    for far in (-50.0, 50.0):
        value, gradient = value_and_grad(loss, (logp + far).float(), replace(batch, **single))
        assert value.isfinite() and gradient.isfinite().all()
