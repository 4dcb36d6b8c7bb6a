"""FlowRL by hand: log Z is the head's value, which a run learns."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch, PolicyTerms
from rlkit.objective import Objective
from rlkit.registry import build
from tests.algorithms.one_group import REFERENCE, TWO, responses

LOG_Z = torch.tensor([0.5, -2.0], dtype=torch.float64)


def gradients(
    batch: LossBatch, logp: Tensor, scope: str, splits: list[list[int]], **fields: float
) -> tuple[float, Tensor, Tensor]:
    """The value, and its gradient in the log-probs and in log Z."""
    loss: Any = build("loss", "flowrl", **fields)
    loss.scope = scope
    leaves = logp.clone().requires_grad_(), LOG_Z.clone().requires_grad_()

    def forward(rows: Tensor) -> PolicyTerms:
        p, z = (leaf[rows] for leaf in leaves)
        return PolicyTerms(logp=p, entropy=torch.zeros_like(p), head=z)

    done = Objective(loss).backward(forward, batch, [torch.tensor(s) for s in splits])
    assert leaves[0].grad is not None and leaves[1].grad is not None
    return done.value, leaves[0].grad, leaves[1].grad


@pytest.mark.parametrize("scope", ["token", "minibatch"])
@pytest.mark.parametrize("splits", [[[0, 1]], [[1], [0]]])
def test_flowrl_by_hand(scope: str, splits: list[list[int]]) -> None:
    """log(pi / ref) sums to -1 over 2 tokens and to 2 over 3; A = 1, -1; beta 2; ratios 1.

    Errors 0.5 - 0.5 - 2 = -2 and -2 + 2/3 + 2 = 2/3; L is the mean of their squares.
    """
    logp, batch = responses(TWO, [1.0, -1.0], to=REFERENCE)
    batch = replace(batch, prox_logp=logp.clone())
    value, gradient, of_z = gradients(batch, logp, scope, splits, beta=2.0)
    assert value == pytest.approx((4 + 4 / 9) / 2)
    assert of_z.tolist() == pytest.approx([-2.0, 2 / 3])
    assert gradient.tolist() == [pytest.approx([-1, -1, 0]), pytest.approx([2 / 9] * 3)]


def test_a_response_weighs_its_whole_ratio_and_no_more_than_the_cap() -> None:
    """Ratios to prox of e^0.3 in all and e^4 > 10; the weight has no gradient."""
    logp, batch = responses(TWO, [1.0, -1.0], to=REFERENCE)
    drift = torch.tensor([[0.2, 0.1, 9.0], [2.0, 1.0, 1.0]], dtype=torch.float64)
    batch = replace(batch, prox_logp=logp - drift)
    _, gradient, of_z = gradients(batch, logp, "token", [[0, 1]], beta=2.0)
    first = math.exp(0.3)
    assert of_z.tolist() == pytest.approx([-2.0 * first, 10 * 2 / 3])
    assert gradient.tolist() == [pytest.approx([-first, -first, 0]), pytest.approx([20 / 9] * 3)]


def test_where_both_sides_balance_nothing_is_pushed() -> None:
    """log Z = beta A - mean log(pi / ref): 2 + 0.5 and -2 - 2/3."""
    logp, batch = responses(TWO, [1.0, -1.0], to=REFERENCE)
    batch = replace(batch, prox_logp=logp.clone())
    loss = build("loss", "flowrl", beta=2.0)
    assert loss.needs == {"prox", "anchor:base", "prompt_hidden"}
    z = torch.tensor([2.5, -2 - 2 / 3], dtype=torch.float64)
    terms = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp), head=z)
    (term,) = loss(terms, batch).terms
    assert term.value.tolist() == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize(("layers", "expected"), [(1, [(1, 4)]), (3, [(4, 4), (4, 4), (1, 4)])])
def test_log_z_has_the_layers_it_is_asked_for(layers: int, expected: list[tuple[int, int]]) -> None:
    module = build("loss", "flowrl", layers=layers).modules(4)
    matrices = [tuple(w.shape) for w in module.parameters() if w.dim() == 2]
    assert matrices == expected and module(torch.zeros(5, 4)).shape == (5, 1)
