"""SPEAR with Clip-Cov by hand: whom it draws among new and among replayed tokens."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.rows import near

EVERY = {"clip_cov_ratio": 1.0, "norm_length": 2}


def two_parts() -> tuple[Tensor, LossBatch]:
    """Two new responses and two replayed ones of two tokens, at ratio 1.

    New: mean A 0, mean log pi -2. Replayed: mean A 1, mean log pi -7.
    """
    logp = torch.tensor([[-1.0, -3.0], [-3.5, -0.5], [-9.0, -5.0], [-6.0, -8.0]]).double()
    advantage = torch.tensor([[1.5], [-1.5], [2.0], [0.0]]).double().expand(4, 2)
    _, batch = examples(frozenset())
    batch = batch.rows(torch.arange(4))
    ones = torch.ones(4, 2, dtype=torch.bool)
    return logp, replace(
        batch,
        mask=ones,
        advantage=advantage,
        behavior_logp=logp,
        prox_logp=logp,
        replayed=torch.tensor([False, False, True, True]),
        response_ids=torch.zeros(4, 2, dtype=torch.int64),
    )


def gradient(**fields: Any) -> Tensor:
    logp, batch = two_parts()
    return value_and_grad(build("loss", "spear_cov", **EVERY, **fields), logp, batch)[1]


def test_each_objective_has_means_of_its_own() -> None:
    """New: cov = 1.5, -1.5; 2.25, -2.25. Replayed: A - 1 = 1, -1, log pi + 7 = -2, 2; 1, -1: cov =
    -2, 2; -1, 1. Those above the bound lose their gradient; the share is 1 / (2 rows * 2)."""
    assert gradient(clip_cov_lb=1.0).tolist() == near([[0, -0.375], [0, 0.375], [-0.5, 0], [0, 0]])
    assert gradient(clip_cov_lb=1.7).tolist() == near(
        [[-0.375, -0.375], [0, 0.375], [-0.5, 0], [0, 0]]
    )
    assert gradient(clip_cov_ub=1.7).tolist() == near(
        [[0, -0.375], [0.375, 0.375], [-0.5, -0.5], [0, 0]]
    )


def test_without_eligible_tokens_it_is_repo_with_its_clip() -> None:
    logp, batch = examples(frozenset({"behavior"}))
    loss = build("loss", "spear_cov", clip_cov_lb=900.0, clip_cov_ub=901.0, replay_weight=0.3)
    own = build("loss", "repo").config.model_dump()
    same = build("loss", "repo", **{name: getattr(loss.config, name) for name in own})
    for a, b in zip(*(value_and_grad(x, logp, batch) for x in (loss, same)), strict=True):
        assert torch.equal(a, b)


def test_with_the_dual_clip_and_no_eligible_tokens_it_is_spear() -> None:
    """At ratio 20, beyond 10; without the dual clip a bad token of that ratio has a gradient."""
    logp, batch = examples(frozenset({"behavior"}))
    batch.behavior_logp[:, 0] = logp[:, 0] - math.log(20)
    fields = {"clip_cov_lb": 900.0, "clip_cov_ub": 901.0}
    spear = value_and_grad(build("loss", "spear"), logp, batch)
    same = value_and_grad(build("loss", "spear_cov", dual_clip=10.0, **fields), logp, batch)
    free = value_and_grad(build("loss", "spear_cov", **fields), logp, batch)
    assert torch.equal(spear[0], same[0]) and torch.equal(spear[1], same[1])
    pushed = batch.mask[:, 0] & (batch.advantage[:, 0] < 0)
    assert not spear[1][pushed, 0].any() and free[1][pushed, 0].all()


@pytest.mark.parametrize("replayed", [False, True])
def test_one_objective_may_be_empty(replayed: bool) -> None:
    """It holds back nothing, and the other one as without it."""
    logp, batch = two_parts()
    rows = torch.tensor([2, 3] if replayed else [0, 1])
    loss = build("loss", "spear_cov", **EVERY)
    alone = value_and_grad(loss, logp[rows], batch.rows(rows))[1]
    assert torch.equal(alone, value_and_grad(loss, logp, batch)[1][rows])
    assert loss_value(loss, logp[rows], batch.rows(rows))[1]["selected"] > 0


def test_at_least_one_token_of_each_objective_is_drawn() -> None:
    """0.02 of four tokens is none, and one is held back of each."""
    logp, batch = two_parts()
    loss = build("loss", "spear_cov", clip_cov_lb=0.5, norm_length=2)
    held = (value_and_grad(loss, logp, batch)[1] == 0) & (batch.advantage != 0)
    assert held[:2].sum() == 1 and held[2:].sum() == 1


def test_the_defaults_are_those_of_the_readme() -> None:
    found = build("loss", "spear_cov").config.model_dump()
    expected = {
        "clip_cov_ratio": 0.02,
        "clip_cov_lb": 1.0,
        "clip_cov_ub": 40.0,
        "clip_low": 0.2,
        "clip_high": 0.28,
        "ratio_to": "behavior",
    }
    assert found.items() >= expected.items()
