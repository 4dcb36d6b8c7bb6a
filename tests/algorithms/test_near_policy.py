"""On-policy and near-policy losses on single tokens, by hand; whole responses are in
test_near_responses.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch, PolicyTerms
from rlkit.errors import UserError
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


@pytest.mark.parametrize("name", ["reinforce", "gpg"])
def test_reinforce_weighs_the_likelihood_by_the_advantage_alone(name: str) -> None:
    """The ratio plays no part: the weight is A wherever the policy has moved."""
    logp, batch = tokens(LOG_RATIO, 2.0)
    assert pushes(name, logp, batch).tolist() == [2.0] * 5
    assert total(name, logp, batch) == -2.0 * LOGP * 5
    assert build("loss", name).needs == frozenset()
    assert build("loss", name).config.aggregation == "token-mean"


def test_importance_sampling_is_the_ratio_without_a_clip() -> None:
    logp, batch = tokens(LOG_RATIO, -2.0)
    assert pushes("importance_sampling", logp, batch).tolist() == pytest.approx(
        [-2 * r for r in RATIO]
    )
    assert total("importance_sampling", logp, batch) == pytest.approx(2 * sum(RATIO))
    clamped = pushes("importance_sampling", logp, batch, log_ratio_clamp=0.5)
    assert clamped.tolist() == pytest.approx([0, -2 * DIP, -2, -2 * HOP, 0])


def test_reinforce_pp_is_the_token_clip_of_ppo() -> None:
    logp, batch = tokens(LOG_RATIO, 1.0)
    for advantage in (1.0, -1.0):
        moved = replace(batch, advantage=batch.advantage * advantage)
        expected = pushes("ppo", logp, moved)
        assert torch.equal(pushes("reinforce_pp", logp, moved), expected)
        assert (expected == 0).sum() == 1


@pytest.mark.parametrize(
    ("fields", "good", "bad"),
    [
        ({}, [LOW, DIP, 1, HOP, 1.28], [LOW, DIP, 1, HOP, 1.28]),
        ({"clip_low": 0.2}, [0.8, DIP, 1, HOP, 1.28], [0.8, DIP, 1, HOP, 1.28]),
        ({"clip_low": 2.0, "clip_high": 9.0}, RATIO, RATIO),
        ({"clip_high": 0.05}, [LOW, DIP, 1, 1.05, 1.05], [LOW, DIP, 1, 1.05, 1.05]),
        (
            {"convention": "absolute_cap", "clip_high": 1.5},
            [LOW, DIP, 1, HOP, 1.5],
            [LOW, DIP, 1, HOP, 1.5],
        ),
        ({"ppo_sign_mask": True}, [LOW, DIP, 1, HOP, 0], [0, DIP, 1, HOP, 1.28]),
        (
            {"ppo_sign_mask": True, "mask_clip_low": 0.05, "mask_clip_high": 0.08},
            [LOW, DIP, 1, 0, 0],
            [0, 0, 1, HOP, 1.28],
        ),
    ],
)
def test_cispo_clips_the_weight_and_keeps_the_gradient(
    fields: dict[str, Any], good: list[float], bad: list[float]
) -> None:
    """w A with a detached w, so that the loss is -w A log pi; only the PPO mask drops a token."""
    for advantage, weight in ((1.0, good), (-1.0, bad)):
        logp, batch = tokens(LOG_RATIO, advantage)
        assert pushes("cispo", logp, batch, **fields).tolist() == pytest.approx(
            [advantage * w for w in weight]
        )
        assert total("cispo", logp, batch, **fields) == pytest.approx(
            -LOGP * advantage * sum(weight)
        )
        share = sum(abs(w - r) > 1e-9 for w, r in zip(weight, RATIO, strict=True)) / 5
        assert metric("cispo", logp, batch, "clip_fraction", **fields) == pytest.approx(share)


def gate(x: float, tau: float) -> float:
    return 4 / tau / (1 + math.exp(-tau * (x - 1)))


@pytest.mark.parametrize(("advantage", "tau"), [(2.0, 1.5), (-2.0, 3.0), (0.0, 3.0)])
def test_sapo_fades_with_the_ratio(advantage: float, tau: float) -> None:
    """f(1) = 2 / tau with slope 1, so that on fresh data the gradient is REINFORCE's."""
    logp, batch = tokens(LOG_RATIO, advantage)
    fields: dict[str, Any] = {"tau_pos": 1.5, "tau_neg": 3.0}
    p = [gate(r, tau) * tau / 4 for r in RATIO]
    slopes = [4 * q * (1 - q) * r * advantage for q, r in zip(p, RATIO, strict=True)]
    gates = [gate(r, tau) for r in RATIO]
    assert pushes("sapo", logp, batch, **fields).tolist() == pytest.approx(slopes)
    assert slopes[2] == advantage
    assert total("sapo", logp, batch, **fields) == pytest.approx(-advantage * sum(gates))
    assert metric("sapo", logp, batch, "gate", **fields) == pytest.approx(sum(gates) / 5)
    fields["variant"] = "detached_gate"
    weights = [advantage * f for f in gates]
    assert pushes("sapo", logp, batch, **fields).tolist() == pytest.approx(weights)
    assert total("sapo", logp, batch, **fields) == pytest.approx(-LOGP * sum(weights))


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_sppo_has_a_window_symmetric_in_the_log_ratio(advantage: float) -> None:
    """log 1.3 = 0.262: both signs of A stop beyond it on either side, unlike PPO."""
    inside, outside = [-0.262, -0.1, 0.0, 0.262], [-0.263, 0.263, 1.0, -1.0]
    logp, batch = tokens(inside + outside, advantage)
    assert pushes("sppo", logp, batch).tolist() == [advantage] * 4 + [0.0] * 4
    assert total("sppo", logp, batch) == pytest.approx(-advantage * sum(inside))
    assert metric("sppo", logp, batch, "clip_fraction") == 0.5
    assert pushes("sppo", logp, batch, epsilon=0.302).count_nonzero() == 6
    assert pushes("sppo", logp, batch, log_ratio_clamp=0.2).count_nonzero() == 2


# ---- DPPO: (mu, pi) of the tokens

MOVES = [(0.5, 0.75), (0.5, 0.6), (0.5, 0.5), (0.5, 0.4), (0.5, 0.25), (0.001, 0.1)]
TOO_HIGH, TOO_LOW = [0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 1]


def moved(advantage: float, pairs: list[tuple[float, float]] = MOVES) -> tuple[Tensor, LossBatch]:
    mu, pi = torch.tensor(pairs, dtype=torch.float64).log().unbind(-1)
    _, batch = tokens(pi - mu, advantage)
    return pi[None], replace(batch, behavior_logp=mu[None], prox_logp=mu[None] + torch.nan)


@pytest.mark.parametrize(
    ("name", "fields", "good", "bad"),
    [
        ("dppo", {}, TOO_HIGH, TOO_LOW),
        ("dppo", {"delta_high": 0.3, "delta_low": 0.05}, [1] * 6, [1, 1, 1, 0, 0, 1]),
        ("dppo", {"delta_high": 0.09}, [0, 0, 1, 1, 1, 0], TOO_LOW),
        ("dppo_ipo", {}, [0, 1, 1, 1, 0, 1], [0, 1, 1, 1, 0, 1]),
        ("dppo_ipo", {"delta_low": 0.3, "delta_high": 0.099}, [0, 0, 1, 0, 0, 0], [1] * 6),
        ("dppo_kl", {}, [0, 1, 1, 1, 1, 0], TOO_LOW),
        ("dppo_kl", {"delta_high": 0.15, "delta_low": 0.02}, [1] * 6, [1, 1, 1, 0, 0, 1]),
    ],
)
def test_dppo_stops_where_the_probability_has_moved_too_far(
    name: str, fields: dict[str, Any], good: list[int], bad: list[int]
) -> None:
    """A hundredfold rise of a rare token moves the probability by 0.099 only, though its binary KL
    is 0.1; a move back towards the sampler is never stopped, except by the symmetric form.

    KL of 0.5 to 0.6 is 0.0204, to 0.75 0.144, to 0.4 0.0204 and to 0.25 0.144.
    """
    if name == "dppo_ipo" and not fields:
        fields = {"delta_low": 0.101, "delta_high": 0.101}
    for advantage, kept in ((2.0, good), (-2.0, bad)):
        logp, batch = moved(advantage)
        ratio = [pi / mu for mu, pi in MOVES]
        coefficient = build("loss", name).config.log_ratio_sq_coef
        pull = [2 * coefficient * math.log(r) for r in ratio]
        expected = [advantage * r * k - p for r, k, p in zip(ratio, kept, pull, strict=True)]
        assert pushes(name, logp, batch, **fields).tolist() == pytest.approx(expected)
        assert metric(name, logp, batch, "kept", **fields) == pytest.approx(sum(kept) / 6)
        assert metric(name, logp, batch, "clip_fraction", **fields) == pytest.approx(
            1 - sum(kept) / 6
        )


def test_dppo_counts_a_zero_advantage_with_the_negative_ones() -> None:
    logp, batch = moved(0.0)
    assert metric("dppo", logp, batch, "kept") == pytest.approx(5 / 6)
    assert metric("dppo", logp, batch, "kept", delta_high=0.01) == pytest.approx(5 / 6)


def test_dppos_detached_form_caps_the_weight_and_has_the_gradient_of_the_ratio() -> None:
    logp, batch = moved(2.0)
    ratio = pushes("dppo", logp, batch)
    assert torch.equal(pushes("dppo", logp, batch, form="detached", ratio_cap=1e4), ratio)
    capped = pushes("dppo", logp, batch, form="detached")
    assert capped[-1] == 40.0 and ratio[-1] == pytest.approx(200.0)
    value = total("dppo", logp, batch, form="detached")
    assert value == pytest.approx(-float((capped * logp[0]).sum()))


def test_dppos_quadratic_term_is_on_dropped_tokens_too() -> None:
    logp, batch = moved(2.0)
    plain = total("dppo", logp, batch)
    squares = sum(math.log(pi / mu) ** 2 for mu, pi in MOVES)
    assert total("dppo", logp, batch, log_ratio_sq_coef=0.5) == pytest.approx(plain + squares / 2)
    assert plain == pytest.approx(-2 * sum(pi / mu for mu, pi in MOVES[1:]))


def test_the_binary_kl_of_certain_tokens_is_a_number() -> None:
    """Probabilities of exactly one leave nothing for the other tokens; float32 included."""
    for dtype in (torch.float64, torch.float32):
        pairs = [(1.0, 1.0), (1.0, 0.5), (0.5, 1.0), (1e-30, 1.0)]
        logp, batch = moved(1.0, pairs)
        batch = replace(
            batch, behavior_logp=batch.behavior_logp.to(dtype), advantage=batch.advantage.to(dtype)
        )
        g = pushes("dppo_kl", logp.to(dtype), batch, log_ratio_clamp=None)
        assert g.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0])
    logp, batch = moved(-1.0, [(1.0, 0.99), (1.0, 0.5)])
    assert pushes("dppo_kl", logp, batch).tolist() == pytest.approx([-0.99, 0.0])


def test_dppo_keeps_valid_tokens_alone_and_clamps_their_ratio() -> None:
    logp, batch = moved(2.0)
    batch = replace(batch, mask=torch.arange(6)[None] < 5)
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    assert build("loss", "dppo")(policy, batch).metrics["kept"].tolist() == [[0, 1, 1, 1, 1, 0]]
    found = pushes("dppo", logp, batch, log_ratio_clamp=0.3)
    assert found.tolist() == pytest.approx([0, 2.4, 2, 1.6, 0, 0])


# ---- Clip-Cov and KL-Cov

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
        ("importance_sampling", {"aggregation": "token-mean"}),
        ("cispo", {"aggregation": "token-mean", "convention": "one_plus_eps", "clip_low": None}),
        ("gspo", {"aggregation": "seq-mean-token-mean", "clip_low": 3e-4, "clip_high": 4e-4}),
        ("luspo", {"aggregation": "seq-mean-token-sum", "clip_low": 2e-3, "clip_high": 2.5e-3}),
        ("gmpo", {"aggregation": "seq-mean-token-mean", "clip_low": 0.4, "clip_high": 0.4}),
        ("sapo", {"aggregation": "seq-mean-token-mean", "tau_pos": 1.0, "tau_neg": 1.05}),
        ("vespo", {"k_pos": 2.0, "lambda_pos": 3.0, "k_neg": 3.0, "lambda_neg": 2.0}),
        ("dppo", {"divergence": "tv", "form": "ratio", "log_ratio_sq_coef": 0.0}),
        ("dppo_kl", {"divergence": "kl", "delta_low": 0.05, "delta_high": 0.05}),
        ("dppo_ipo", {"divergence": "ipo", "delta_low": 0.1, "log_ratio_sq_coef": 1e-3}),
        ("rloo", {"variant": "ppo_sequence", "clip_low": 0.2, "clip_high": 0.2}),
        ("clip_cov", {"clip_cov_ratio": 2e-4, "clip_cov_lb": 1.0, "clip_cov_ub": 5.0}),
        ("kl_cov", {"kl_cov_ratio": 2e-4, "kl_coef": 0.1}),
        ("sppo", {"epsilon": 0.3}),
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
