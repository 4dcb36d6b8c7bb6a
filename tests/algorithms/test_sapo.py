"""SAPO's gate by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlkit.registry import build
from tests.algorithms.tokens import LOG_RATIO, LOGP, RATIO, metric, pushes, tokens, total


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sapo", {"aggregation": "seq-mean-token-mean", "tau_pos": 1.0, "tau_neg": 1.05}),
    ],
)
def test_the_defaults_are_the_papers(name: str, expected: dict[str, Any]) -> None:
    assert build("loss", name).config.model_dump().items() >= expected.items()
