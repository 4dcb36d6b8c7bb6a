"""Clip-Cov and KL-Cov by hand: which tokens are chosen."""

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
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.tokens import metric, pushes, tokens, total

ADVANTAGE = [1.0, 1.0, -1.0, -1.0, 0.0, 9.0]


LIKELIHOOD = [-3.0, -0.5, -3.0, -0.5, -2.0, 7.0]


def six_tokens(log_ratio: float = 0.1) -> tuple[Tensor, LossBatch]:
    """Five valid tokens: mean A 0, mean log pi -1.8, so cov = -1.2, 1.3, 1.2, -1.3, 0."""
    logp, batch = tokens([log_ratio] * 6, 1.0)
    logp = torch.tensor([LIKELIHOOD]).double()
    mask = torch.tensor([[True] * 5 + [False]])
    advantage = torch.tensor([ADVANTAGE]).double()
    other = torch.where(mask, logp - log_ratio, 900.0)
    return logp, replace(batch, mask=mask, advantage=advantage, prox_logp=other)


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({}, [0, 1, 0, 0, 0]),
        ({"kl_cov_ratio": 0.5}, [0, 1, 1, 0, 0]),
        ({"kl_cov_ratio": 0.6}, [0, 1, 1, 0, 1]),
        ({"kl_cov_ratio": 1.0, "kl_coef": 3.0}, [1] * 5),
    ],
)
def test_kl_cov_holds_the_tokens_of_largest_covariance(
    fields: dict[str, float], chosen: list[int]
) -> None:
    """Their number is rounded down, but at least one; the garbage token would have the largest."""
    coef = fields.get("kl_coef", 0.1)
    for sign, log_ratio in ((1, 0.1), (-1, -0.1)):
        logp, batch = six_tokens(log_ratio)
        r = math.exp(log_ratio)
        expected = [a * r - coef * sign * k for a, k in zip(ADVANTAGE, chosen, strict=False)]
        assert pushes("kl_cov", logp, batch, **fields)[:5].tolist() == pytest.approx(expected)
        assert total("kl_cov", logp, batch, **fields) == pytest.approx(coef * 0.1 * sum(chosen))
        found = metric("kl_cov", logp, batch, "selected", **fields)
        assert found == pytest.approx(sum(chosen) / 5)


def cut(**fields: Any) -> list[bool]:
    """Which of the five tokens Clip-Cov leaves without a gradient; A = 0 has none anyway."""
    logp, batch = six_tokens()
    assert metric("clip_cov", logp, batch, "ratio_mean", **fields) == pytest.approx(math.exp(0.1))
    return (pushes("clip_cov", logp, batch, **fields)[:4] == 0).tolist()


def test_clip_cov_takes_the_gradient_from_tokens_between_the_bounds() -> None:
    every = {"clip_cov_ratio": 1.0}
    assert cut(**every) == [False, True, True, False]
    assert cut(**every, clip_cov_lb=1.25) == [False, True, False, False]
    assert cut(**every, clip_cov_ub=1.25) == [False, False, True, False]
    assert cut(**every, clip_cov_lb=-5.0, clip_cov_ub=-1.25) == [False, False, False, True]


def test_clip_cov_draws_at_least_one_and_never_a_token_the_ratio_clip_cut() -> None:
    """Share 2e-4 of five tokens is one, 0.4 is two. With clip_high 0.05 the ratio's clip cuts the
    positive advantages itself, which leaves one token to draw."""
    assert sum(cut()) == 1
    assert sum(cut(clip_cov_ratio=0.4)) == 2
    logp, batch = six_tokens()
    narrow = {"clip_high": 0.05}
    assert cut(**narrow) == [True, True, True, False]
    assert metric("clip_cov", logp, batch, "selected", **narrow) == pytest.approx(1 / 5)
    assert metric("clip_cov", logp, batch, "clip_fraction", **narrow) == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("name", "advantage", "fields"),
    [
        ("clip_cov", [1.0, -1.0] * 100, {"clip_cov_ratio": 0.1, "clip_cov_lb": 0.0}),
        ("kl_cov", [1.0] * 200, {"kl_cov_ratio": 0.1}),
    ],
)
def test_a_draw_follows_the_log_probs_not_the_places(
    name: str, advantage: list[float], fields: dict[str, float]
) -> None:
    """Whom Clip-Cov draws, and which of equal covariances KL-Cov takes: reversed tokens agree."""
    generator = torch.Generator().manual_seed(0)
    logp = -3 * torch.rand(1, 200, generator=generator).double()
    _, batch = tokens([0.0] * 200, advantage)
    batch = replace(batch, prox_logp=logp - 0.1)
    turned = replace(batch, prox_logp=logp.flip(1) - 0.1, advantage=batch.advantage.flip(1))
    found, other = (
        build("loss", name, **fields)(PolicyTerms(logp=x, entropy=x), b).metrics["selected"][0]
        for x, b in ((logp, batch), (logp.flip(1), turned))
    )
    assert torch.equal(other.flip(0), found)
    assert found.sum() == 20 and 0 < found[:100].sum() < 20


def test_clip_cov_keeps_ppos_other_caps() -> None:
    logp, batch = tokens([2.0], -1.0)
    assert pushes("clip_cov", logp, batch).item() != 0
    assert pushes("clip_cov", logp, batch, dual_clip=3.0).item() == 0
    assert pushes("clip_cov", logp, batch, delta=3.0).item() == 0
    low, batch = tokens([-1.0], -1.0)
    assert pushes("clip_cov", low, batch).item() != 0
    assert pushes("clip_cov", low, batch, clip_low=0.2).item() == 0


def test_covariance_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(UserError, match=r"clip_cov_lb=6\.0 must be below clip_cov_ub=5\.0"):
        build("loss", "clip_cov", clip_cov_lb=6.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clip_cov", {"clip_cov_ratio": 2e-4, "clip_cov_lb": 1.0, "clip_cov_ub": 5.0}),
        ("kl_cov", {"kl_cov_ratio": 2e-4, "kl_coef": 0.1}),
    ],
)
def test_the_defaults_are_the_papers(name: str, expected: dict[str, Any]) -> None:
    assert build("loss", name).config.model_dump().items() >= expected.items()


@pytest.mark.parametrize("name", ["clip_cov", "kl_cov"])
def test_means_are_over_the_minibatch(name: str) -> None:
    """Its halves, of unlike advantages, would alone choose other tokens."""
    logp, batch = examples(frozenset())
    batch = replace(batch, advantage=batch.advantage + torch.tensor([0.0] * 4 + [2.0] * 4)[:, None])
    loss = build("loss", name, aggregation="token-sum", **WIDE[name])
    assert loss.scope == "minibatch"
    halves = [torch.arange(4), torch.arange(4, 8)]
    whole = value_and_grad(loss, logp, batch)[1]
    parts = torch.cat([value_and_grad(loss, logp[h], batch.rows(h))[1] for h in halves])
    assert not torch.allclose(whole, parts)


WIDE: dict[str, dict[str, float]] = {
    "clip_cov": {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.1},
    "kl_cov": {"kl_cov_ratio": 0.3},
}
