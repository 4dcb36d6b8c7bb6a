"""BPPO by hand."""

from __future__ import annotations

import math

import pytest

from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import examples, value_and_grad
from tests.algorithms.one_group import PROX, responses


@pytest.mark.parametrize(
    ("omega", "advantage", "pushed"),
    [
        (0.9, 1.0, [0.63, 0.9 * 0.8, 0.9 * 1.2, 0]),
        (0.9, -1.0, [0, 0.08, 0.12, 0.13]),
        (0.6, -1.0, [0, 0.4 * 0.8, 0.4 * 1.2, 0.4 * 1.3]),
    ],
)
def test_bppo_favors_good_tokens_by_omega(
    omega: float, advantage: float, pushed: list[float]
) -> None:
    """Ratios 0.7, 0.8, 1.2 and 1.3 around the bounds 0.75 and 1.25."""
    logp, batch = responses([[math.log(r) for r in (0.7, 0.8, 1.2, 1.3)]], [advantage], to=PROX)
    loss = build("loss", "bppo", omega=omega, aggregation="token-sum")
    gradient = value_and_grad(loss, logp, batch)[1]
    assert (-gradient / advantage)[0].tolist() == pytest.approx(pushed)
    assert loss_value(loss, logp, batch)[1]["clip_fraction"] == 0.25


def test_bppo_at_one_half_is_half_of_ppo() -> None:
    logp, batch = examples(PROX)
    fields = {"clip_low": 0.1, "clip_high": 0.05}
    bppo = value_and_grad(build("loss", "bppo", omega=0.5, **fields), logp, batch)
    ppo = value_and_grad(build("loss", "ppo", **fields), logp, batch)
    assert close([2 * x for x in bppo], ppo)
