"""Any correction composes with any loss, whatever the loss's terms and however it is split."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlkit.batch import PolicyTerms
from rlkit.registry import build, names
from rlkit.testing.losses import examples
from rlkit.training.objective import Objective


@pytest.mark.slow
@pytest.mark.parametrize("loss_name", names("loss"))
def test_every_correction_composes_with_the_loss(loss_name: str) -> None:
    """Finite, and the gradient of the whole minibatch from micro-batches of three rows."""
    loss = build("loss", loss_name)
    logp, batch = examples(loss.needs)
    every = torch.arange(len(logp))
    for name in names("correction"):
        gradients = []
        for splits in ([every], list(torch.split(every, 3))):
            objective = Objective(loss, corrections=[(name, build("correction", name))])
            leaf = logp.clone().requires_grad_()

            def forward(rows: Tensor, leaf: Tensor = leaf) -> PolicyTerms:
                return PolicyTerms(logp=leaf[rows], entropy=leaf[rows] ** 2)

            value = objective.backward(forward, batch, splits).value
            assert leaf.grad is not None and torch.isfinite(leaf.grad).all(), name
            gradients.append(torch.cat([leaf.grad.flatten(), torch.tensor([value]).double()]))
        torch.testing.assert_close(
            *gradients, rtol=1e-9, atol=1e-12, msg=f"{name} is not invariant"
        )


def test_an_entropy_bonus_beside_weights_and_masks_is_one_more_term() -> None:
    """The weights and masks of the others are on the policy term alone."""
    logp, batch = examples(frozenset({"behavior", "prox"}))
    terms = PolicyTerms(logp=logp, entropy=torch.full_like(logp, 0.5))
    stack = [(n, build("correction", n)) for n in ("icepop", "overlong_filter", "entropy_bonus")]
    out = Objective(build("loss", "ppo"), corrections=stack).output(
        terms, batch, torch.ones_like(batch.expert)
    )
    policy, bonus = out.terms
    assert (policy.name, bonus.name) == ("policy", "entropy")
    coefficient = build("correction", "entropy_bonus").config.coef
    assert (bonus.value[bonus.mask] == -coefficient * 0.5).all()
