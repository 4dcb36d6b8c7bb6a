"""P3O by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rlkit.errors import UserError
from rlkit.objective import loss_value
from rlkit.ops import kl_value
from rlkit.registry import build
from tests.algorithms.rows import double, near, outcome, rows

INF = math.inf


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


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("p3o", {"cap": "one"}),
        ("p3o", {"kl_coef": -1.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("loss", name, **fields)
