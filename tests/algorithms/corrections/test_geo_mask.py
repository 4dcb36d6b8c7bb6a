"""Masks by the geometric mean of prox / behavior, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch, PolicyTerms
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.corrections import Plain
from rlkit.training.objective import Objective
from tests.algorithms.corrections.hand import MASK, K, apply, batch_of, tensor, weight_of


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"is_min": 0.5, "is_max": 1.45}, [True, False]),
        ({"is_min": 1.45, "is_max": 2.0}, [False, True]),
        ({"is_min": 1.0, "is_max": 2.0}, [True, True]),
        ({"is_min": 1.0, "is_max": 1.3, "is_log_clamp": 0.25}, [True, True]),
        ({}, [False, False]),
    ],
)
def test_geo_mask_takes_responses_out_of_the_mask(fields: dict[str, Any], rows: list[bool]) -> None:
    """A clamp of 1/4 makes the first mean 0 and the second 1/4, which is below log 1.3."""
    logp, batch = batch_of(K)
    out = apply(build("correction", "geo_mask", **fields), logp, batch)
    kept = torch.tensor(rows)[:, None]
    assert torch.equal(out.batch.mask, MASK & kept)
    assert torch.equal(out.weight, kept.double().expand(2, 3))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"is_max": 1.45}, [[0.5, 4, 0], [0, 0, 0]]),
        ({"is_min": 1.45}, [[0, 0, 0], [1.5, 1.5, 1.5]]),
        ({}, [[0.5, 4, 0], [1.5, 1.5, 1.5]]),
        ({"is_log_clamp": math.log(3)}, [[0.5, 3, 0], [1.5, 1.5, 1.5]]),
    ],
)
def test_seq_mask_tis_weighs_the_tokens_of_kept_responses(
    fields: dict[str, Any], expected: list[list[float]]
) -> None:
    torch.testing.assert_close(weight_of("seq_mask_tis", *batch_of(K), **fields), tensor(*expected))


@pytest.mark.parametrize("factor", [0.5, 5.0])
def test_the_default_bounds_of_seq_mask_tis(factor: float) -> None:
    for k, kept in ((factor * 0.99, factor > 1), (factor * 1.01, factor < 1)):
        found = weight_of("seq_mask_tis", *batch_of(torch.full((2, 3), k, dtype=torch.float64)))
        assert bool(found.any()) == kept


def test_no_weight_of_a_kept_token_is_infinite() -> None:
    """Log-ratios of 150 and -149, whose mean is within the bounds; exp(150) is no float32."""
    logp, batch = batch_of(K)
    apart = torch.tensor([[150.0, -149.0, 0.0], [0.0, 0.0, 0.0]])
    prox = logp.float()
    batch = replace(batch, prox_logp=prox, behavior_logp=prox - apart)
    out = apply(build("correction", "seq_mask_tis"), prox, batch)
    assert out.weight.dtype == torch.float32 and out.weight.isfinite().all()
    assert out.weight[0, 0].item() == pytest.approx(math.exp(20))


def test_a_clamp_keeps_no_response_that_the_mean_leaves_out() -> None:
    """A token 100 nats away makes the mean 50; clamped to 1 it would be within log 5."""
    logp, batch = batch_of(K)
    prox = logp.float()
    apart = torch.tensor([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    batch = replace(batch, prox_logp=prox, behavior_logp=prox - apart)
    out = apply(build("correction", "seq_mask_tis", is_log_clamp=1.0), prox, batch)
    assert out.weight[0].tolist() == [0, 0, 0] and out.weight[1].tolist() == [1, 1, 1]


def loss_of(batch: LossBatch, logp: Tensor, name: str, **fields: Any) -> float:
    corrections = [(name, build("correction", name, **fields))]
    objective = Objective(Plain(), corrections=corrections)
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    terms = objective.output(policy, batch, torch.ones(len(logp)).bool()).terms
    return float(objective.reduce(terms, objective.counts(terms)))


def test_the_denominator_shrinks_with_geo_mask_and_not_with_seq_mask_tis() -> None:
    """Weights of 1 on the kept response of 3 tokens, 5 tokens in all: the losses differ by 5/3."""
    k = tensor([2, 2, 2], [1, 1, 1])
    logp, batch = batch_of(k)
    bounds = {"is_min": 0.9, "is_max": 1.1}
    alone = -((batch.advantage + 0.5) * logp)[1].sum().item()
    assert loss_of(batch, logp, "geo_mask", **bounds) == pytest.approx(alone / 3)
    assert loss_of(batch, logp, "seq_mask_tis", **bounds) == pytest.approx(alone / 5)


@pytest.mark.parametrize("name", ["geo_mask", "seq_mask_tis"])
def test_demonstrations_stay_and_bounds_are_ordered(name: str) -> None:
    logp, batch = batch_of(K, expert=torch.tensor([True, False]))
    out = apply(build("correction", name, is_min=1.1, is_max=1.2), logp, batch)
    assert out.weight[0, :2].tolist() == [1, 1] and not (out.weight * out.batch.mask)[1].any()
    with pytest.raises(UserError, match="must not exceed"):
        build("correction", name, is_min=2.0, is_max=1.5)
