"""M2PO, GEPO, P3O, and the losses that learn from demonstrations, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.luffy import shaped
from algorithms.m2po import clip_radius, smallest
from rlkit.batch import LossBatch, PolicyTerms
from rlkit.errors import UserError
from rlkit.interfaces import LossConfig
from rlkit.ops import kl_value
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import examples, value_and_grad
from rlkit.training.objective import Objective, loss_value

INF = math.inf


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


# ---- M2PO


@pytest.mark.parametrize(
    ("squares", "threshold", "strict", "kept"),
    [
        ([0.01, 0.09, 0.04], 0.04, False, [1, 0, 1]),
        ([0.01, 0.02], 0.04, False, [1, 1]),
        ([0.75, 0.25], 0.5, False, [1, 1]),
        ([0.75, 0.25], 0.5, True, [0, 1]),
        ([1.5, 0.5, 1.5], 1.0, False, [0, 1, 0]),
        ([3.0, 2.0], 1.0, False, [0, 0]),
        ([3.0, 2.0], 1.0, True, [0, 1]),
        ([2.0], 1.0, True, [1]),
        ([], 1.0, False, []),
        ([], 1.0, True, []),
    ],
)
def test_the_largest_squares_leave_until_the_mean_of_the_rest_fits(
    squares: list[float], threshold: float, strict: bool, kept: list[int]
) -> None:
    """Equal ones leave together, so that the choice does not depend on the order of the rows."""
    assert smallest(double(squares), threshold, strict=strict).int().tolist() == kept


@pytest.mark.parametrize(
    ("budget", "radius"), [(0.1, 0), (0.25, 0), (0.4, 0.5), (0.6, 0.5**0.5), (0.95, None)]
)
def test_the_radius_is_the_last_own_root_below_the_budget(
    budget: float, radius: float | None
) -> None:
    """Squares 1/4, 1/2, 2 capped at the k-th sum to 3/4, 5/4 and 11/4."""
    found = clip_radius(double([2.0, 0.25, 0.5]), budget)
    assert found == (None if radius is None else pytest.approx(radius, rel=1e-12))
    assert clip_radius(double([]), budget) is None


TRUSTED = [[0.1, 0.3, -2.0], [-0.1, -0.9, 1.0]]
"""Log-ratios of a good and a bad response: the first two of each are in the trust region."""


def test_m2po_drops_the_far_trust_region_tokens_and_divides_by_all() -> None:
    """Squares 0.01, 0.09, 0.01 and 0.81: without the last, the mean is 0.037.

    The log-ratios of -2 and 1 push back to the policy that sampled them and stay.
    """
    logp, batch = rows(TRUSTED, [[1.0], [-1.0]])
    gradient, metrics = outcome("m2po", logp, batch)
    r = double(TRUSTED).exp()
    expected = [(-r[0] / 6).tolist(), [float(r[1, 0] / 6), 0.0, float(r[1, 2] / 6)]]
    assert gradient == near(expected)
    assert metrics["masked_tokens"] == pytest.approx(1 / 6)
    assert outcome("m2po", logp, batch, m2_threshold=1.0)[1]["masked_tokens"] == 0


def test_m2po_sees_the_whole_minibatch() -> None:
    """The bad response alone has the mean 0.41 and loses 0.81; beside 20 small ones it keeps it."""
    logp, batch = rows([TRUSTED[1], *[[-0.01, -0.01, -0.01]] * 20], -1.0)
    assert outcome("m2po", logp, batch)[1]["masked_tokens"] == 0
    index = torch.tensor([0])
    alone = outcome("m2po", logp[index], batch.rows(index))[1]
    assert alone["masked_tokens"] == pytest.approx(1 / 3)
    assert build("loss", "m2po").scope == "minibatch"


@pytest.mark.parametrize(
    ("fields", "low", "high", "cut"),
    [
        ({}, 0.3, 0.5, [[0, 0, 0], [0, 1, 0]]),
        (
            {"clip_low_min": 0.05, "clip_high_min": 0.05},
            1 - math.exp(-0.1),
            math.exp(0.1) - 1,
            None,
        ),
        ({"clip_low_min": 0.7, "clip_high_min": 0.2}, 0.7, 0.2, [[0, 1, 0], [0, 0, 0]]),
        ({"m2_threshold": 0.3}, 1.0, 1e5 - 1, [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_the_authors_code_clips_where_the_budget_is_met(
    fields: dict[str, Any], low: float, high: float, cut: Any
) -> None:
    """tau = 0.1: capped at 0.1 the squares have the mean 0.01, capped at 0.3 already 0.05.

    The bounds are widened to the minima; within the budget (mean 0.23) nothing is clipped. The
    tokens at tau itself keep their gradient.
    """
    logp, batch = rows(TRUSTED, [[1.0], [-1.0]])
    cut = [[0, 1, 0], [0, 1, 0]] if cut is None else cut
    gradient, metrics = outcome("m2po_authors_repo", logp, batch, **fields)
    assert metrics["clip_low"] == pytest.approx(low) and metrics["clip_high"] == pytest.approx(high)
    assert metrics["clip_fraction"] == pytest.approx(double(cut).mean().item())
    free = double(TRUSTED).exp() * double([[-1.0], [1.0]]) / 6
    assert gradient == near((free * (1 - double(cut))).tolist())


def test_the_value_of_a_clipped_token_is_at_the_bound() -> None:
    logp, batch = rows([[2.0]], 1.0)
    value, _ = loss_value(build("loss", "m2po_authors_repo"), logp, batch)
    assert value.item() == pytest.approx(-1.5)


@pytest.mark.parametrize(("log_ratio", "advantage"), [(-2.0, 0.5), (2.0, -0.5)])
def test_a_token_that_comes_back_is_not_clipped(log_ratio: float, advantage: float) -> None:
    logp, batch = rows([[log_ratio]], advantage)
    gradient, metrics = outcome("m2po_authors_repo", logp, batch)
    assert metrics["clip_fraction"] == 0
    assert gradient == near([[-math.exp(log_ratio) * advantage]])


def three_policies() -> tuple[Tensor, LossBatch]:
    """One response; prox / behavior has the log-ratios 0.1, -0.1, 0.9, pi / prox 0.1, 0.5, 0.1."""
    logp, batch = rows([[0.1, 0.5, 0.1]], 1.0)
    return logp, replace(batch, behavior_logp=batch.prox_logp - double([[0.1, -0.1, 0.9]]))


def test_areal_drops_what_moved_far_and_divides_by_what_stays() -> None:
    """Of the two tokens left, PPO's clip cuts the second at ratio e^0.5."""
    logp, batch = three_policies()
    gradient, metrics = outcome("m2po_areal", logp, batch)
    assert gradient == near([[-math.exp(0.1) / 2, 0, 0]])
    assert metrics["masked_tokens"] == pytest.approx(1 / 3)
    wide = outcome("m2po_areal", logp, batch, clip_high=1.0)[0]
    assert wide == near([[-math.exp(0.1) / 2, -math.exp(0.5) / 2, 0]])
    weighted = outcome("m2po_areal", logp, batch, behavior_weight=True)[0]
    assert weighted == near([[-math.exp(0.2) / 2, 0, 0]])
    every = outcome("m2po_areal", logp, batch, m2_threshold=1.0)[0]
    assert every == near([[-math.exp(0.1) / 3, 0, -math.exp(0.1) / 3]])


@pytest.mark.parametrize(("clip_low", "kept"), [(0.2, 0), (0.5, 1)])
def test_areal_clips_a_negative_advantage_from_below(clip_low: float, kept: float) -> None:
    logp, batch = rows([[-0.5]], -1.0)
    batch = replace(batch, behavior_logp=batch.prox_logp)
    gradient = outcome("m2po_areal", logp, batch, clip_low=clip_low)[0]
    assert gradient == near([[kept * math.exp(-0.5)]])


def test_areal_keeps_the_token_that_moved_least_however_far() -> None:
    logp, batch = three_policies()
    index, mask = torch.tensor([0]), double([[0, 0, 1]]).bool()
    metrics = outcome("m2po_areal", logp, replace(batch.rows(index), mask=mask))[1]
    assert metrics["masked_tokens"] == 0


@pytest.mark.parametrize("name", ["m2po", "m2po_authors_repo", "m2po_areal"])
def test_the_ratio_is_clamped(name: str) -> None:
    """Beyond the clamp the ratio stands still; what is dropped or cut does not change."""
    logp, batch = rows([[-2.0, 0.01]], 1.0)
    gradient, metrics = outcome(name, logp, batch, log_ratio_clamp=0.5)
    assert gradient == near([[0, -math.exp(0.01) / 2]])
    assert metrics["ratio_mean"] == pytest.approx((math.exp(-0.5) + math.exp(0.01)) / 2)


@pytest.mark.parametrize(
    ("name", "needs", "settings"),
    [
        ("m2po", {"behavior"}, set()),
        ("m2po_authors_repo", {"behavior"}, {"clip_low_min", "clip_high_min"}),
        ("m2po_areal", {"behavior", "prox"}, {"clip_low", "clip_high", "behavior_weight"}),
    ],
)
def test_each_m2po_reads_what_it_compares_and_has_its_own_settings_alone(
    name: str, needs: set[str], settings: set[str]
) -> None:
    loss = build("loss", name)
    assert loss.needs == needs and loss.config.m2_threshold == 0.04
    own = set(type(loss.config).model_fields) - set(LossConfig.model_fields)
    assert own == settings | {"m2_threshold"}


# ---- GEPO

P, Q = (0.2, 0.6, 0.5), (0.4, 0.1, 0.3)
"""Per-token probabilities of three responses; the third is another group's."""


def gepo_rows(advantage: Any) -> tuple[Tensor, LossBatch]:
    """Two tokens each, whose mean log-prob is that of P and of Q."""
    p, q = (double(x).log()[:, None] + double([0.3, -0.3]) for x in (P, Q))
    _, batch = rows(p, advantage)
    return p, replace(batch, behavior_logp=q, group=torch.tensor([0, 0, 1]))


def test_gepo_divides_by_the_groups_expected_probability() -> None:
    """sum q^2 / sum q = 0.17 / 0.5 = 0.34: the weights are 0.588, 1.765 and, alone, 5/3."""
    weights = [0.2 / 0.34, 0.6 / 0.34, 0.5 / 0.3]
    logp, batch = gepo_rows([[1.0], [-1.0], [1.0]])
    gradient, metrics = outcome("gepo", logp, batch)
    assert metrics["weight"] == pytest.approx(sum(weights) / 3)
    assert gradient == near([[-weights[0] / 6] * 2, [weights[1] / 6] * 2, [0, 0]])
    assert metrics["clip_fraction"] == pytest.approx(1 / 3)
    logp, batch = gepo_rows([[-1.0], [1.0], [-1.0]])
    assert outcome("gepo", logp, batch)[0] == near([[0, 0], [0, 0], [weights[2] / 6] * 2])
    low = outcome("gepo", logp, batch, clip_low=0.5)[0]
    assert low == near([[weights[0] / 6] * 2, [0, 0], [weights[2] / 6] * 2])
    clamped = outcome("gepo", logp, batch, log_ratio_clamp=0.1)[1]
    assert clamped["weight"] == pytest.approx((math.exp(-0.1) + 2 * math.exp(0.1)) / 3)
    wide = outcome("gepo", logp, batch, clip_low=0.5, clip_high=0.9)[0]
    assert wide == near([[w / 6 * s] * 2 for w, s in zip(weights, (1, -1, 1), strict=True)])


def test_eqp_divides_by_the_policys_own_expectation_and_differentiates_it() -> None:
    """D = 0.8 * 0.2 + 0.2 * 0.6 = 0.28, shares s_j = q_hat_j p_j / D = 4/7 and 3/7.

    dw_i / dlog p_j = w_i ([i = j] - s_j). Alone in its group a response has weight 1 always.
    """
    logp, batch = gepo_rows([[1.0], [-1.0], [1.0]])
    found = outcome("gepo", logp, batch, denominator="EqP", clip_low=0.9, clip_high=2.0)[0]
    w = [0.2 / 0.28, 0.6 / 0.28]
    d = [w[0] * (1 - 4 / 7) + w[1] * 4 / 7, -w[0] * 3 / 7 - w[1] * (1 - 3 / 7)]
    assert found == near([[-d[0] / 6] * 2, [-d[1] / 6] * 2, [0, 0]])


@pytest.mark.parametrize("denominator", ["EqQ", "EqP"])
@pytest.mark.parametrize("clamp", [None, 20.0])
def test_an_empty_response_has_no_share_in_its_group(denominator: str, clamp: float | None) -> None:
    logp, batch = gepo_rows([[1.0], [-1.0], [1.0]])
    batch = replace(batch, group=torch.tensor([0, 0, 1]))
    fields = {"denominator": denominator, "log_ratio_clamp": clamp, "clip_high": 5.0}
    index = torch.tensor([0, 1])
    expected = value_and_grad(build("loss", "gepo", **fields), logp[index], batch.rows(index))
    mask = batch.mask.clone()
    mask[2] = False
    for group in ([0, 0, 0], [0, 0, 1]):
        with_empty = replace(batch, mask=mask, group=torch.tensor(group))
        value, gradient = value_and_grad(build("loss", "gepo", **fields), logp, with_empty)
        assert close(expected, (value, gradient[:2])) and (gradient[2] == 0).all()


# ---- P3O


def test_on_policy_p3o_is_reinforce() -> None:
    """ESS is 1, so nothing is capped and nothing pulls."""
    logp, batch = rows(torch.zeros(2, 2), [[1.0], [-2.0]])
    gradient, metrics = outcome("p3o", logp, batch)
    assert gradient == near([[-0.25] * 2, [0.5] * 2])
    assert (metrics["ess"], metrics["cap"], metrics["kl_coef"]) == pytest.approx((1, 1, 0))


R = (1.0, 3.0)


@pytest.mark.parametrize(
    ("fields", "cap", "kl_coef", "slope"),
    [
        ({}, 0.8, 0.2, (0, 2 / 3)),
        ({"kl_estimator": "k2"}, 0.8, 0.2, (0, math.log(3))),
        ({"kl_estimator": "k1"}, 0.8, 0.2, (1, 1)),
        ({"cap": 2.0}, 2.0, 0.2, (0, 2 / 3)),
        ({"kl_coef": 0.5}, 0.8, 0.5, (0, 2 / 3)),
        ({"log_ratio_clamp": math.log(2)}, 0.9, 0.1, (0, 0)),
    ],
)
def test_the_effective_sample_size_caps_and_pulls(
    fields: dict[str, Any], cap: float, kl_coef: float, slope: tuple[float, float]
) -> None:
    """Ratios 1 and 3: ESS = 16 / (2 * 10) = 0.8; clamped at 2 it is 9 / (2 * 5)."""
    logp, batch = rows(double([R]).log(), 2.0)
    found, metrics = outcome("p3o", logp, batch, **fields)
    assert (metrics["cap"], metrics["kl_coef"]) == pytest.approx((cap, kl_coef))
    reach = min(3.0, math.exp(fields.get("log_ratio_clamp", INF)))
    weights = [min(1.0, cap), min(reach, cap)]
    expected = [(-w * 2 + kl_coef * k) / 2 for w, k in zip(weights, slope, strict=True)]
    assert found == near([expected])
    over = sum(r > cap for r in (1.0, reach)) / 2
    assert metrics["clip_fraction"] == over and metrics["weight"] == pytest.approx(sum(weights) / 2)


def test_p3os_value_holds_the_kl() -> None:
    logp, batch = rows(double([R]).log(), 2.0)
    kl = kl_value(logp, batch.behavior_logp, batch.mask, "k3")
    value, metrics = loss_value(build("loss", "p3o"), logp, batch)
    assert value.item() == pytest.approx(0.8 * 2 + 0.2 * kl.mean().item())
    assert metrics["kl"] == pytest.approx(kl.mean().item())


# ---- demonstrations


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

    total = Objective(loss).backward(forward, batch, torch.split(torch.arange(8), 3))
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


@pytest.mark.parametrize(
    ("fields", "own", "theirs"),
    [
        ({}, 0, 0.1 * 0.5 / 0.36),
        ({"shaping_gamma": 0.5}, 0, 0.25),
        ({"shaping_gamma": None}, 0, 0.5),
        ({"on_policy_clip": False}, 1.5, 0.1 * 0.5 / 0.36),
        ({"clip_low": 0.6}, 1.5, 0.1 * 0.5 / 0.36),
        ({"clip_upper_bound": 1.6}, 1.5, 0.1 * 0.5 / 0.36),
        ({"ratio_to": "behavior"}, 1, 0.1 * 0.5 / 0.36),
    ],
)
def test_luffys_weight_of_a_demonstration_and_of_an_own_token(
    fields: dict[str, Any], own: float, theirs: float
) -> None:
    """Own ratio 1.5 above the clip at 1.2 (to behavior it is 1), a demonstration at p = 1/2.

    The weight on grad log p is gamma p / (p + gamma)^2.
    """
    logp, batch = rows(double([[1.5], [1.5]]).log(), [[1.0], [2.0]])
    logp[1] = math.log(0.5)
    behavior = torch.stack([logp[0], torch.full((1,), torch.nan).double()])
    batch = replace(batch, behavior_logp=behavior, expert=torch.tensor([False, True]))
    gradient, metrics = outcome("luffy", logp, batch, **fields)
    assert gradient == near([[-own / 2], [-2 * theirs / 2]])
    assert metrics["clip_fraction"] == (0.5 if own == 0 else 0)


@pytest.mark.parametrize(("clip_low", "weight"), [(0.2, 0), (0.6, 0.5)])
def test_luffys_lower_clip(clip_low: float, weight: float) -> None:
    logp, batch = rows(double([[0.5]]).log(), -1.0)
    assert outcome("luffy", logp, batch, clip_low=clip_low)[0] == near([[weight]])


def test_shaping_saturates_without_overflow() -> None:
    found = shaped(torch.tensor([-200.0, math.log(0.1), 0.0, 200.0]), 0.1)
    assert found.tolist() == pytest.approx([0, 0.5, 1 / 1.1, 1])


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({}, (1, 1)),
        ({"weighting": "phi"}, (0.25, 0.1875)),
        ({"weighting": "probability"}, (0.5, 0.25)),
        ({"only_expert": True}, (0, 2)),
    ],
)
def test_sft_imitates_whatever_the_advantage(
    fields: dict[str, Any], weights: tuple[float, float]
) -> None:
    """Probabilities 1/2 and 1/4; only_expert halves the count too."""
    _, batch = rows([[0.3], [0.4]], [[-3.0], [torch.nan]])
    logp = double([[0.5], [0.25]]).log()
    batch = replace(batch, expert=torch.tensor([False, True]))
    assert outcome("sft", logp, batch, **fields)[0] == near([[-w / 2] for w in weights])
    assert build("loss", "sft").needs == frozenset()


def test_chord_averages_each_part_over_its_own_tokens() -> None:
    """Two own tokens at ratios 1.1 and 1.5, one demonstration at p = 1/4: phi = 3/16."""
    logp, batch = rows(double([[1.1], [1.5], [1.0]]).log(), 1.0)
    logp[2] = math.log(0.25)
    batch = replace(batch, expert=torch.tensor([False, False, True]))
    batch.prox_logp[2] = torch.nan
    for fields, expected in (
        ({}, [-0.9 * 1.1 / 2, 0, -0.1 * 0.1875]),
        ({"mu": 0.4}, [-0.6 * 1.1 / 2, 0, -0.4 * 0.1875]),
        ({"weighting": "none"}, [-0.9 * 1.1 / 2, 0, -0.1]),
        ({"weighting": "probability"}, [-0.9 * 1.1 / 2, 0, -0.1 * 0.25]),
        ({"clip_high": 0.6}, [-0.9 * 1.1 / 2, -0.9 * 1.5 / 2, -0.1 * 0.1875]),
        ({"mu": 0.0}, [-1.1 / 2, 0, 0]),
        ({"mu": 1.0}, [0, 0, -0.1875]),
    ):
        gradient, metrics = outcome("chord", logp, batch, **fields)
        assert gradient == near([[g] for g in expected])
        assert metrics["clip_fraction"] == (0 if "clip_high" in fields else pytest.approx(1 / 3))


@pytest.mark.parametrize("fields", [{}, {"dual_clip": 2.0}, {"delta": 2.0}, {"clip_low": 0.9}])
def test_chord_without_demonstrations_is_ppo_times_its_share(fields: dict[str, Any]) -> None:
    logp, batch = rows(double([[0.5, 1.0, 3.0]]).log(), [[-1.0, -1.0, -2.0]])
    found = value_and_grad(build("loss", "chord", mu=0.25, **fields), logp, batch)
    expected = value_and_grad(build("loss", "ppo", **fields), logp, batch)
    assert close([0.75 * x for x in expected], found)


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({}, (3, 0, 3)),
        ({"max_advantage": 1.0}, (1, 0, 1)),
        ({"is_clip": 10.0}, (1.5, 0, 3)),
        ({"is_clip": 0.25}, (0.75, 0, 3)),
        ({"is_clip": 10.0, "log_ratio_clamp": 0.1}, (3 * math.exp(-0.1), 0, 3)),
    ],
)
def test_sil_imitates_what_did_better_than_expected(
    fields: dict[str, Any], weights: tuple[float, float, float]
) -> None:
    """Ratios 1/2, 4 and a demonstration, whose ratio is unknown and whose weight stays."""
    logp, batch = rows(double([[0.5], [4.0], [1.0]]).log(), [[3.0], [-2.0], [3.0]])
    batch = replace(batch, expert=torch.tensor([False, False, True]))
    batch.behavior_logp[2] = torch.nan
    gradient, metrics = outcome("sil", logp, batch, **fields)
    assert gradient == near([[-w / 3] for w in weights])
    assert metrics["positive_fraction"] == pytest.approx(2 / 3)
    assert build("loss", "sil", **fields).needs == ({"behavior"} if "is_clip" in fields else set())


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("m2po", {"m2_threshold": -0.1}),
        ("m2po_authors_repo", {"clip_low_min": 1.0}),
        ("gepo", {"clip_low": 1.5}),
        ("p3o", {"cap": "one"}),
        ("p3o", {"kl_coef": -1.0}),
        ("luffy", {"shaping_gamma": 0.0}),
        ("chord", {"mu": 1.1}),
        ("sil", {"is_clip": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("loss", name, **fields)
