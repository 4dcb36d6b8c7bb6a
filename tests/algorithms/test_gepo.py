"""GEPO by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing.base import close
from rlkit.testing.losses import value_and_grad
from tests.algorithms.rows import double, near, outcome, rows

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


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("gepo", {"clip_low": 1.5}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        build("loss", name, **fields)
