"""The REC, REP and RED family by hand, and the losses its members equal."""

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
from rlkit.testing.base import close
from rlkit.testing.losses import examples, value_and_grad

RATIOS = [0.3, 0.6, 0.9, 1.1, 1.5, 3.5]
GEOMETRIC = math.prod(RATIOS) ** (1 / 6)


def one_row(ratios: list[float], advantage: float) -> tuple[Tensor, LossBatch]:
    """One response with these ratios to behavior, at log-prob -2; prox is NaN."""
    log_ratio = torch.tensor([ratios], dtype=torch.float64).log()
    logp = torch.full_like(log_ratio, -2.0)
    batch = examples(frozenset())[1].rows(torch.tensor([0]))
    return logp, replace(
        batch,
        mask=torch.ones_like(log_ratio, dtype=torch.bool),
        advantage=torch.full_like(log_ratio, advantage),
        behavior_logp=logp - log_ratio,
        prox_logp=torch.full_like(logp, math.nan),
    )


def pushes(advantage: float, ratios: list[float] = RATIOS, **fields: Any) -> list[float]:
    """How far each token's log-prob is pushed along the advantage: -gradient / A."""
    logp, batch = one_row(ratios, advantage)
    loss = build("loss", "rec", aggregation="token-sum", **fields)
    pushed: list[float] = (-value_and_grad(loss, logp, batch)[1] / advantage)[0].tolist()
    return pushed


@pytest.mark.parametrize(
    ("mode", "changed", "good", "bad"),
    [
        ("none", {}, [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]),
        ("one-side", {}, [1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]),
        ("one-side", {"clip_low": 0.5}, [1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]),
        ("one-side", {"clip_high": 0.6}, [1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]),
        ("two-side", {}, [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]),
        ("two-side", {"clip_low": 0.05}, [0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0]),
        ("two-side", {"clip_high": 0.05}, [0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0]),
        ("ring", {}, [1, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 1]),
        ("ring", {"clip_low_prime": 0.35}, [1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 1]),
        ("ring", {"clip_high_prime": 0.4}, [1, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]),
    ],
)
def test_rec_keeps_the_tokens_its_clip_mode_names(
    mode: str, changed: dict[str, Any], good: list[float], bad: list[float]
) -> None:
    """Bounds 0.8 and 1.2, outer ones 0.4 and 3; beyond the outer ones the push leads back."""
    fields: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.2}
    fields |= {"clip_low_prime": 0.6, "clip_high_prime": 2.0} | changed
    assert pushes(0.5, clip_mode=mode, **fields) == pytest.approx(good)
    assert pushes(-0.5, clip_mode=mode, **fields) == pytest.approx(bad)
    logp, batch = one_row(RATIOS, 0.5)
    metrics = loss_value(build("loss", "rec", clip_mode=mode, **fields), logp, batch)[1]
    assert metrics["clip_fraction"] == pytest.approx(1 - sum(good) / 6)


@pytest.mark.parametrize(("advantage", "kept"), [(1.0, [0, 1]), (-1.0, [1, 0])])
def test_rec_gspo_one_side_judges_a_response_as_a_whole(advantage: float, kept: list[int]) -> None:
    """Mean log-ratios 0.15 and -0.15, with tokens far out on both sides of the bounds -+0.1."""
    fields: dict[str, Any] = {"clip_mode": "gspo-one-side", "clip_low": 0.1, "clip_high": 0.1}
    for sign, expected in zip((1, -1), kept, strict=True):
        ratios = [math.exp(sign * d) for d in (1.0, -0.7)]
        assert pushes(advantage, ratios, **fields) == pytest.approx([expected] * 2)


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({"weight": "none"}, [1.0] * 6),
        ({"weight": "importance_sampling"}, RATIOS),
        (
            {"weight": "importance_sampling", "log_ratio_clamp": 0.1},
            [math.exp(min(max(math.log(r), -0.1), 0.1)) for r in RATIOS],
        ),
        ({"weight": "gspo_importance_sampling"}, [GEOMETRIC] * 6),
        ({"weight": "advantage"}, [math.exp(0.5)] * 6),
        ({"weight": "advantage", "temp": 0.25}, [math.exp(2)] * 6),
        ({"weight": "advantage", "temp": 0.25, "log_ratio_clamp": 1.5}, [math.exp(1.5)] * 6),
        ({"weight": "advantage", "temp": 0.25, "log_ratio_clamp": None}, [math.exp(2)] * 6),
    ],
)
def test_rec_weights_are_detached_factors(fields: dict[str, Any], weights: list[float]) -> None:
    assert pushes(0.5, clip_mode="none", **fields) == pytest.approx(weights)
    logp, batch = one_row(RATIOS, 0.5)
    loss = build("loss", "rec", clip_mode="none", aggregation="token-sum", **fields)
    assert float(value_and_grad(loss, logp, batch)[0]) == pytest.approx(0.5 * 2 * sum(weights))


def test_rec_exponential_weights_of_bad_responses_are_small() -> None:
    found = pushes(-0.5, clip_mode="none", weight="advantage", temp=0.1, log_ratio_clamp=3.0)
    assert found == pytest.approx([math.exp(-3)] * 6)


@pytest.mark.parametrize(
    ("fields", "value", "gradient"),
    [
        (
            {"regularizer": "k2", "regularizer_coef": 0.3},
            0.3 * sum(math.log(r) ** 2 for r in RATIOS),
            [0.6 * math.log(r) for r in RATIOS],
        ),
        (
            {"regularizer": "k2", "regularizer_coef": 0.3, "log_ratio_clamp": 0.5},
            0.3 * sum(min(abs(math.log(r)), 0.5) ** 2 for r in RATIOS),
            [0.6 * math.log(r) if abs(math.log(r)) < 0.5 else 0 for r in RATIOS],
        ),
        ({"regularizer": "forward-kl", "regularizer_coef": 0.3}, 0.3 * 2 * 6, [-0.3] * 6),
        ({"regularizer": "none", "regularizer_coef": 0.3}, 0.0, [0.0] * 6),
    ],
)
def test_rec_regularizers_act_on_every_token_also_on_clipped_ones(
    fields: dict[str, Any], value: float, gradient: list[float]
) -> None:
    logp, batch = one_row(RATIOS, 0.0)
    clipped_away = {"clip_mode": "two-side", "clip_low": 1e-6, "clip_high": 1e-6}
    loss = build("loss", "rec", aggregation="token-sum", **clipped_away, **fields)
    for advantage in (0.0, 1.0):
        given = replace(batch, advantage=batch.advantage + advantage)
        found = value_and_grad(loss, logp, given)
        assert float(found[0]) == pytest.approx(value)
        assert found[1][0].tolist() == pytest.approx(gradient)


def test_rec_weights_of_garbage_under_the_mask_stay_out() -> None:
    """exp(1e4) there would be infinite, and infinity times a zero gradient is NaN."""
    logp, batch = examples(frozenset())
    spoiled = replace(batch, advantage=torch.where(batch.mask, batch.advantage, 1e4))
    loss = build("loss", "red_weight", log_ratio_clamp=None)
    assert close(value_and_grad(loss, logp, batch), value_and_grad(loss, logp, spoiled))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rec", ("one-side", "none", "none", 0.6, 2.0)),
        ("rec_oneside_is", ("one-side", "importance_sampling", "none", 0.2, 0.2)),
        ("rec_oneside_nois", ("one-side", "none", "none", 0.2, 0.2)),
        ("rec_twoside_is", ("two-side", "importance_sampling", "none", 0.2, 0.2)),
        ("rec_ring_is", ("ring", "importance_sampling", "none", 0.2, 0.2)),
        ("rec_ring_nois", ("ring", "none", "none", 0.2, 0.2)),
        ("rec_gspo_is", ("gspo-one-side", "gspo_importance_sampling", "none", 3e-4, 4e-4)),
        ("rec_gspo_nois", ("gspo-one-side", "none", "none", 3e-4, 4e-4)),
        ("rep_asymre", ("none", "none", "forward-kl", 0.6, 2.0)),
        ("rep_opmd", ("none", "none", "k2", 0.6, 2.0)),
        ("red_weight", ("none", "advantage", "none", 0.6, 2.0)),
        ("red_drop", ("none", "none", "none", 0.6, 2.0)),
    ],
)
def test_rec_names_are_the_papers_instances(name: str, settings: tuple[Any, ...]) -> None:
    """The regularizers' coefficient is 0.1, the ring's outer bounds are 0.4 and 3, the temperature
    1; means are over tokens, and over responses where a response is judged as a whole.
    """
    c = build("loss", name).config
    assert (c.clip_mode, c.weight, c.regularizer, c.clip_low, c.clip_high) == settings
    others = c.regularizer_coef, c.clip_low_prime, c.clip_high_prime, c.temp
    assert others == (0.1, 0.6, 2.0, 1.0)
    assert c.aggregation == ("seq-mean-token-mean" if "gspo" in name else "token-mean")


@pytest.mark.parametrize(
    ("name", "other", "fields"),
    [
        ("rec_oneside_is", "ppo", {"clip_low": 0.2, "clip_high": 0.2}),
        ("rec_gspo_is", "gspo", {"clip_low": 0.05, "clip_high": 0.04}),
    ],
)
def test_rec_one_sided_with_its_weight_has_the_clipped_surrogates_gradient(
    name: str, other: str, fields: dict[str, float]
) -> None:
    """REINFORCE with the detached ratio, masked where the clip has no gradient; values differ."""
    logp, batch = examples(frozenset())
    found = value_and_grad(build("loss", name, **fields), logp, batch)
    expected = value_and_grad(build("loss", other, ratio_to="behavior", **fields), logp, batch)
    assert torch.allclose(found[1], expected[1], rtol=1e-9, atol=0)
    assert not torch.allclose(found[0], expected[0])
    assert (found[1][batch.mask] == 0).any() and (found[1][batch.mask] != 0).any()


def test_rep_asymre_is_asymre_with_the_baseline_lowered_by_its_coefficient() -> None:
    """-A log pi - coef log pi = -(A + coef) log pi."""
    logp, batch = examples(frozenset())
    shifted = replace(batch, advantage=batch.advantage + 0.1)
    asymre = build("loss", "asymre", aggregation="token-mean")
    rep = build("loss", "rep_asymre")
    assert close(value_and_grad(asymre, logp, shifted), value_and_grad(rep, logp, batch))


def test_rep_opmd_is_the_kimi_surrogate_per_token_with_twice_the_strength() -> None:
    """tau/2 (log r)^2 = coef (log r)^2."""
    logp, batch = examples(frozenset())
    kimi = build("loss", "opmd_kimi_token", tau=0.4)
    rep = build("loss", "rep_opmd", regularizer_coef=0.2)
    assert close(value_and_grad(kimi, logp, batch), value_and_grad(rep, logp, batch))
