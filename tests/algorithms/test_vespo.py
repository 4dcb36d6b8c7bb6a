"""VESPO's weight by hand, with its clamps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlkit.batch import PolicyTerms
from rlkit.errors import UserError
from rlkit.objective import loss_value
from rlkit.registry import build
from tests.algorithms.two_rows import SUM, pushes, same, two_rows


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vespo", {"k_pos": 2.0, "lambda_pos": 3.0, "k_neg": 3.0, "lambda_neg": 2.0}),
    ],
)
def test_the_defaults_are_the_papers(name: str, expected: dict[str, Any]) -> None:
    assert build("loss", name).config.model_dump().items() >= expected.items()


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
    """phi of a response of 3 tokens with these log-ratios, and of its lag behind the behavior."""
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
