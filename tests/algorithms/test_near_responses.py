"""On-policy and near-policy losses on whole responses, by hand."""

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


E1, E2 = (math.exp(x) for x in SUM)
S1, S2 = (math.exp(x) for x in MEAN)


# ---- RLOO


@pytest.mark.parametrize(
    ("advantage", "fields", "kept"),
    [
        ([2.0, 3.0], {}, (0, 1)),
        ([2.0, -3.0], {}, (0, 0)),
        ([-2.0, 3.0], {}, (1, 1)),
        ([2.0, -3.0], {"clip_high": 0.4}, (1, 0)),
        ([2.0, -3.0], {"clip_low": 0.5}, (0, 1)),
    ],
)
def test_rloo_clips_the_product_of_a_responses_ratios(
    advantage: list[float], fields: dict[str, float], kept: tuple[int, int]
) -> None:
    """rho = e^0.3 and e^-0.6; the value of a response is not divided by its length."""
    a, b = advantage
    same(pushes("rloo", advantage, **fields), a * E1 * kept[0], b * E2 * kept[1])
    low, high = 1 - fields.get("clip_low", 0.2), 1 + fields.get("clip_high", 0.2)
    first = min(E1, high) if a > 0 else E1
    second = max(E2, low) if b < 0 else E2
    assert value("rloo", advantage, **fields) == pytest.approx(-(a * first + b * second) / 2)
    logp, batch = two_rows(advantage)
    metrics = loss_value(build("loss", "rloo", **fields), logp, batch)[1]
    assert metrics["clip_fraction"] == pytest.approx(1 - sum(kept) / 2)


def test_rloos_log_product_is_clamped_not_its_tokens() -> None:
    fields: dict[str, Any] = {"clip_low": 1.0, "clip_high": 9.0, "log_ratio_clamp": 0.4}
    same(pushes("rloo", [2.0, 3.0], **fields), 2 * E1, 0)
    assert value("rloo", [2.0, 3.0], **fields) == pytest.approx(-E1 - 1.5 * math.exp(-0.4))
    fields["log_ratio_clamp"] = 0.2
    same(pushes("rloo", [2.0, 3.0], **fields), 0, 0)
    same(pushes("rloo", [2.0, 3.0], **fields | {"log_ratio_clamp": None}), 2 * E1, 3 * E2)


def test_the_dual_clip_is_of_the_token_form_alone() -> None:
    same(pushes("rloo", [-2.0, 3.0], dual_clip=1.1), -2 * E1, 3 * E2)


def test_rloos_three_forms_have_one_gradient_on_fresh_data() -> None:
    """At ratio 1: A on every token, as REINFORCE with the response as one action."""
    logp, batch = two_rows([2.0, -3.0], delta=torch.zeros_like(DELTA))
    for fields in (
        {},
        {"variant": "reinforce"},
        {"variant": "reinforce", "aggregation": "seq-mean-token-sum"},
        {"variant": "ppo_token", "aggregation": "seq-mean-token-sum"},
    ):
        same(-2 * value_and_grad(build("loss", "rloo", **fields), logp, batch)[1], 2, -3)


def test_rloos_paper_form_ignores_the_ratio_and_sums_the_response() -> None:
    logp, _ = two_rows([2.0, -3.0])
    expected = -(2 * logp[0, :2].sum() - 3 * logp[1].sum()) / 2
    for aggregation in ("seq-mean-token-mean", "seq-mean-token-sum"):
        found = value("rloo", [2.0, -3.0], variant="reinforce", aggregation=aggregation)
        assert found == pytest.approx(float(expected))
    token_mean = value("rloo", [2.0, -3.0], variant="reinforce", aggregation="token-mean")
    assert token_mean == pytest.approx(float(expected) * 2 / 5)


def test_rloos_token_form_is_ppo_with_the_dual_clip() -> None:
    fields = {"clip_low": 0.15, "clip_high": 0.3, "dual_clip": 1.5, "aggregation": "token-mean"}
    for advantage in ([2.0, -3.0], [-2.0, 3.0]):
        found = pushes("rloo", advantage, variant="ppo_token", **fields)
        assert torch.equal(found, pushes("ppo", advantage, **fields))
    assert found[0, 0] == 0, "e^0.5 is beyond the dual clip"


def test_an_empty_response_adds_minus_its_advantage_where_it_counts() -> None:
    mask = torch.tensor([[True, True, False], [False] * 3])
    logp, batch = two_rows([2.0, 3.0], delta=DELTA * 0, mask=mask)
    found = {
        counted: float(loss_value(build("loss", "rloo", count_empty_rows=counted), logp, batch)[0])
        for counted in (False, True)
    }
    assert found == {False: -2.0, True: -2.5}


# ---- GSPO and LUSPO

WIDE = {"clip_low": 0.5, "clip_high": 0.5}


@pytest.mark.parametrize("name", ["gspo", "luspo"])
@pytest.mark.parametrize(
    ("advantage", "fields", "kept"),
    [
        ([2.0, -3.0], WIDE, (1, 1)),
        ([2.0, -3.0], WIDE | {"clip_high": 0.1}, (0, 1)),
        ([2.0, -3.0], WIDE | {"clip_low": 0.1}, (1, 0)),
        ([-2.0, 3.0], {}, (1, 1)),
        ([2.0, -3.0], {}, (0, 0)),
        ([2.0, 3.0], WIDE | {"log_seq_ratio_max": 0.1}, (0, 1)),
        ([2.0, 3.0], WIDE | {"log_ratio_clamp": 0.1}, (0, 0)),
        ([2.0, 3.0], WIDE | {"log_ratio_clamp": 0.17, "log_seq_ratio_max": None}, (1, 0)),
    ],
)
def test_gspo_has_one_ratio_a_response(
    name: str, advantage: list[float], fields: dict[str, Any], kept: tuple[int, int]
) -> None:
    """s = e^0.15 and e^-0.2; the clip and both clamps stop all tokens of a response at once. LUSPO
    multiplies by the length, which leaves no 1 / T."""
    sizes = (2, 3) if name == "gspo" else (1, 1)
    a, b = (x * k / n for x, k, n in zip(advantage, kept, sizes, strict=True))
    same(pushes(name, advantage, **fields), a * S1, b * S2)


def test_gspos_value_is_the_clipped_surrogate_of_the_response() -> None:
    assert value("gspo", [2.0, -3.0], **WIDE) == pytest.approx(-(2 * S1 - 3 * S2) / 2)
    assert value("luspo", [2.0, -3.0], **WIDE) == pytest.approx(-(4 * S1 - 9 * S2) / 2)
    narrow = {"clip_low": 0.1, "clip_high": 0.1}
    assert value("gspo", [2.0, -3.0], **narrow) == pytest.approx(-(2 * 1.1 - 3 * 0.9) / 2)
    capped = WIDE | {"log_seq_ratio_max": 0.1}
    assert value("gspo", [2.0, 0.0], **capped) == pytest.approx(-math.exp(0.1))
    logp, batch = two_rows([2.0, -3.0])
    metrics = loss_value(build("loss", "gspo"), logp, batch)[1]
    assert metrics["response_ratio"] == pytest.approx((2 * S1 + 3 * S2) / 5)
    assert metrics["clip_fraction"] == 1


def test_gspo_gives_each_token_its_own_advantage() -> None:
    """The token form: s A_t / T. A clipped sign stops its own tokens only."""
    advantage = [[2.0, -1.0, 0.0], [1.0, 0.5, -3.0]]
    found = pushes("gspo", advantage, **WIDE)
    assert found[0, :2].tolist() == pytest.approx([S1, -S1 / 2])
    assert found[1].tolist() == pytest.approx([S2 / 3, S2 / 6, -S2])
    found = pushes("gspo", advantage, clip_low=0.1, clip_high=0.1)
    assert found[0, :2].tolist() == pytest.approx([0, -S1 / 2])
    assert found[1].tolist() == pytest.approx([S2 / 3, S2 / 6, 0])


# ---- GMPO


@pytest.mark.parametrize(
    ("advantage", "fields", "logs", "kept"),
    [
        ([2.0, 3.0], {}, (0.1, -0.2), ([0, 1], [1, 1, 1])),
        ([2.0, -3.0], {"clip_high": 0.6}, (0.15, -0.2), ([1, 1], [1, 1, 1])),
        ([-2.0, -3.0], {}, (0.15, -0.2), ([1, 1], [1, 1, 1])),
        ([-2.0, -3.0], {"clip_low": 0.15}, (0.175, -0.4 / 3), ([1, 0], [1, 0, 0])),
        ([-2.0, 3.0], {"clip_low": 0.1, "clip_high": 0.1}, (0.2, -0.2), ([1, 0], [1, 1, 1])),
        ([-2.0, 3.0], {"log_ratio_clamp": 0.25}, (0.025, -0.55 / 3), ([0, 1], [1, 1, 0])),
    ],
)
def test_gmpo_clips_log_ratios_before_their_mean(
    advantage: list[float],
    fields: dict[str, float],
    logs: tuple[float, float],
    kept: tuple[list[int], list[int]],
) -> None:
    """Log-ratios 0.5, -0.2 and -0.1, -0.2, -0.3: upper clip where A > 0, lower where A < 0."""
    a, b = (x * math.exp(y) for x, y in zip(advantage, logs, strict=True))
    found = pushes("gmpo", advantage, **fields)
    assert found[0, :2].tolist() == pytest.approx([a / 2 * k for k in kept[0]])
    assert found[1].tolist() == pytest.approx([b / 3 * k for k in kept[1]])
    assert value("gmpo", advantage, **fields) == pytest.approx(-(a + b) / 2)
    if "log_ratio_clamp" not in fields:
        logp, batch = two_rows(advantage)
        share = loss_value(build("loss", "gmpo", **fields), logp, batch)[1]["clip_fraction"]
        assert share == pytest.approx(1 - sum(map(sum, kept)) / 5)


def test_gmpo_takes_each_tokens_sign_and_the_mean_advantage() -> None:
    """Row 1: signs + and -, mean 0.5, 0.5 cut to 0.4. Row 2: a zero advantage drops its token."""
    advantage = [[2.0, -1.0, 0.0], [3.0, 0.0, 3.0]]
    found = pushes("gmpo", advantage)
    first, second = 0.5 * math.exp(0.1), 2 * math.exp(-0.4 / 3)
    assert found[0, :2].tolist() == pytest.approx([0, first / 2])
    assert found[1].tolist() == pytest.approx([second / 3, 0, second / 3])
    logp, batch = two_rows(advantage)
    metrics = loss_value(build("loss", "gmpo"), logp, batch)[1]
    assert metrics["clip_fraction"] == pytest.approx(1 / 5)


# ---- VESPO


def phi(log_w: float, k: float, decay: float) -> float:
    return math.exp(k * log_w + decay * (1 - math.exp(log_w)))


@pytest.mark.parametrize(
    "fields",
    [{}, {"k_pos": 1.1, "lambda_pos": 0.7}, {"k_neg": 0.5, "lambda_neg": 1.3}],
)
def test_vespo_weighs_by_a_gamma_shape_of_the_product(fields: dict[str, float]) -> None:
    """W = e^0.3 and e^-0.6, detached; k and lambda by the sign of the advantage."""
    given = {"k_pos": 2.0, "lambda_pos": 3.0, "k_neg": 3.0, "lambda_neg": 2.0} | fields
    good, bad = (given["k_pos"], given["lambda_pos"]), (given["k_neg"], given["lambda_neg"])
    for advantage, shapes in (([2.0, -3.0], (good, bad)), ([-2.0, 3.0], (bad, good))):
        w = [phi(x, *shape) for x, shape in zip(SUM, shapes, strict=True)]
        found = pushes("vespo", advantage, aggregation="seq-mean-token-sum", **fields)
        same(found, advantage[0] * w[0], advantage[1] * w[1])
        logp, batch = two_rows(advantage)
        loss, metrics = loss_value(build("loss", "vespo", **fields), logp, batch)
        rows = (w[0] * advantage[0] * logp[0, :2].sum(), w[1] * advantage[1] * logp[1].sum())
        assert float(loss) == pytest.approx(-float(sum(rows)) / 5)
        assert metrics["phi"] == pytest.approx(sum(w) / 2)


def vespo_weight(
    deltas: list[float], advantage: float, lag: float | None = None, **fields: Any
) -> float:
    """phi of a response of 3 tokens with these log-ratios, and of its lag behind the behaviour."""
    logp, batch = two_rows([advantage] * 2, delta=torch.tensor([deltas] * 2).double())
    batch = replace(batch, behavior_logp=batch.prox_logp - (lag or torch.nan))
    loss = build("loss", "vespo", use_behavior=lag is not None, **fields)
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    return float(loss(policy, batch).metrics["phi"][1])


LOG_TINY = math.log(1e-8)


@pytest.mark.parametrize(
    ("deltas", "log_w"),
    [
        ([0.0, 0.0, 0.0], 0.0),
        ([-30.0, 19.0, 0.5], -0.5),
        ([30.0, -19.0, -1.5], -0.5),
        ([-9.0, -9.0, -9.0], LOG_TINY),
    ],
)
def test_vespo_clamps_tokens_to_20_and_the_product_to_1e8(
    deltas: list[float], log_w: float
) -> None:
    """k_pos 0.1 and a tiny lambda keep the ends visible; lambda is at least 1e-4."""
    small = {"k_pos": 0.1, "lambda_pos": 1e-9, "log_ratio_clamp": None}
    expected = phi(log_w, 0.1, 1e-4)
    assert vespo_weight(deltas, 0.0, **small) == pytest.approx(expected, rel=1e-9)
    negative = {"k_neg": 0.1, "lambda_neg": 1e-9}
    assert vespo_weight(deltas, -1.0, **negative) == pytest.approx(expected, rel=1e-9)


def test_vespo_clamps_the_log_product_at_20() -> None:
    """Only a huge power shows it: at e^20 even the least lambda gives e^-48516."""
    found = vespo_weight([9.0, 9.0, 9.0], 1.0, k_pos=2426.0, lambda_pos=0.0)
    assert found == pytest.approx(phi(20.0, 2426.0, 1e-4), rel=1e-6)


@pytest.mark.parametrize(
    ("deltas", "lag", "log_w"),
    [
        ([0.1, 0.2, 0.0], 0.1, 0.6),
        ([19.0, 19.0, 19.0], -30.0, 57 + 3 * LOG_TINY),
        ([-19.0, -19.0, -19.0], 30.0, 3.0),
    ],
)
def test_vespo_folds_the_lag_into_the_product(
    deltas: list[float], lag: float, log_w: float
) -> None:
    """Each token's log(prox / behavior) is clamped to [log 1e-8, 20] before it is added."""
    small = {"k_pos": 0.1, "lambda_pos": 1e-4}
    found = vespo_weight(deltas, 1.0, lag, **small)
    assert found == pytest.approx(phi(log_w, 0.1, 1e-4), rel=1e-9)
    assert build("loss", "vespo", use_behavior=True).needs == {"prox", "behavior"}


def test_a_vespo_weight_that_overflows_is_zero() -> None:
    assert vespo_weight([9.0, 9.0, 9.0], 1.0, k_pos=80.0, lambda_pos=0.0) == 0.0


def test_an_empty_response_has_weight_one() -> None:
    logp, batch = two_rows([2.0, 3.0], mask=torch.tensor([[True] * 3, [False] * 3]))
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    assert build("loss", "vespo")(policy, batch).metrics["phi"][1] == 1.0


def test_a_ratio_to_behavior_holds_the_lag_already() -> None:
    with pytest.raises(UserError, match="use_behavior needs ratio_to=prox"):
        build("loss", "vespo", use_behavior=True, ratio_to="behavior")
