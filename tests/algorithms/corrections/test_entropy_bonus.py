"""The entropy bonus by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import PolicyTerms
from rlkit.registry import build
from rlkit.testing.corrections import Plain
from rlkit.training.objective import Objective
from tests.algorithms.corrections.hand import MASK, K, batch_of


@pytest.mark.parametrize("coef", [0.5, 2.0])
def test_the_bonus_raises_the_entropy(coef: float) -> None:
    """L falls by coef * mean H, so a step against the gradient raises H at valid tokens alone; the
    policy's term keeps its gradient.
    """
    logp, batch = batch_of(K)
    logits = logp.clone().requires_grad_()
    spread = torch.rand(2, 3, dtype=torch.float64)
    entropy = spread.clone().requires_grad_()
    corrections = [("entropy_bonus", build("correction", "entropy_bonus", coef=coef))]

    def run(parts: list[Any]) -> tuple[Tensor, Tensor, Tensor]:
        objective = Objective(Plain(), corrections=parts)
        policy = PolicyTerms(logp=logits, entropy=entropy)
        terms = objective.output(policy, batch, torch.ones(2).bool()).terms
        value = objective.reduce(terms, objective.counts(terms))
        a, b = torch.autograd.grad(value, (logits, entropy), materialize_grads=True)
        return value.detach(), a, b

    (plain, d_logp, _), (found, d_logp_too, d_entropy) = run([]), run(corrections)
    assert float(found - plain) == pytest.approx(-coef * float(spread[MASK].mean()))
    assert torch.equal(d_logp, d_logp_too)
    torch.testing.assert_close(d_entropy, torch.where(MASK, -coef / 5, 0.0).double())


def test_the_bonus_has_entropy_computed_with_its_gradient() -> None:
    assert build("correction", "entropy_bonus").needs == {"entropy"}
