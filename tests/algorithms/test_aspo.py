"""ASPO by hand: which sign's ratio is inverted, and which tokens have the wider clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from algorithms.aspo import quantile_above
from rlkit.batch import PolicyTerms
from rlkit.objective import loss_value
from rlkit.registry import build
from rlkit.testing.losses import value_and_grad
from tests.algorithms.rows import rows

RATIOS = [0.1, 0.5, 0.9, 1.1, 1.3, 4.0]


@pytest.mark.parametrize(
    ("advantage", "fields", "weights"),
    [
        (2.0, {}, [3, 2, 1 / 0.9, 1 / 1.1, 0, 0]),
        (2.0, {"eps": 0.5}, [3, 2, 1 / 0.9, 1 / 1.1, 1 / 1.3, 0]),
        (2.0, {"dual_clip": 1.5}, [1.5, 1.5, 1 / 0.9, 1 / 1.1, 0, 0]),
        (-2.0, {}, [0, 0, 0.9, 1.1, 1.3, 0]),
        (-2.0, {"dual_clip": 5.0}, [0, 0, 0.9, 1.1, 1.3, 4]),
        (2.0, {"inverted": "negative"}, [0.1, 0.5, 0.9, 1.1, 0, 0]),
        (-2.0, {"inverted": "negative"}, [0, 0, 1 / 0.9, 1 / 1.1, 1 / 1.3, 0.25]),
    ],
)
def test_the_gradient_weighs_the_inverse_ratio_on_one_sign(
    advantage: float, fields: dict[str, Any], weights: list[float]
) -> None:
    ratio = torch.tensor([RATIOS], dtype=torch.float64)
    logp, batch = rows(ratio.log(), [[advantage]])
    loss = build("loss", "aspo", entropy_quantile=None, aggregation="token-sum", **fields)
    assert loss.scope == "token" and "entropy" not in loss.needs
    gradient = value_and_grad(loss, logp, batch)[1][0]
    assert (-gradient / advantage).tolist() == pytest.approx(weights)
    metrics = loss_value(loss, logp, batch)[1]
    assert metrics["clip_fraction"] == pytest.approx(weights.count(0) / 6)


def test_tokens_of_high_entropy_have_the_wider_clip() -> None:
    """Entropies 0, ..., 4: only the last is above the quantile 0.8, which is 3.2."""
    logp, batch = rows(torch.full((1, 5), 1.3).double().log(), [[1.0]])
    loss = build("loss", "aspo")
    assert loss.scope == "minibatch" and "entropy" in loss.needs
    entropy = torch.arange(5.0).double()[None]
    out = loss(PolicyTerms(logp=logp, entropy=entropy), batch)
    assert out.metrics["clip_fraction"].tolist() == [[1, 1, 1, 1, 0]]
    masked = replace(batch, mask=torch.tensor([[True, False, False, False, False]]))
    out = loss(PolicyTerms(logp=logp, entropy=entropy), masked)
    assert out.metrics["clip_fraction"][0, 0] == 1


@pytest.mark.parametrize("valid", [True, False])
def test_a_single_token_and_none_at_all_have_no_quantile_to_be_above(valid: bool) -> None:
    """Of one entropy, every quantile is that entropy; of none, nothing is read."""
    entropy, mask = torch.tensor([[2.0]]), torch.tensor([[valid]])
    assert quantile_above(entropy, mask, 0.8).tolist() == [[False]]
