"""`loss_value` is the number training minimizes."""

from __future__ import annotations

import pytest
import torch

from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.errors import UserError
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.training.loss_value import loss_value
from tests.training.objectives import Sequence, Surrogate, gradient, make_batch


def test_norm_length_of_the_loss_wins_over_the_completion_length() -> None:
    logp, batch = make_batch()
    kind = "seq-mean-token-sum-norm"
    ten, _ = loss_value(Surrogate(LossConfig(aggregation=kind, norm_length=10)), logp, batch)
    default, _ = loss_value(Surrogate(LossConfig(aggregation=kind)), logp, batch)
    assert ten.item() == pytest.approx(default.item() * 512 / 10)


def test_a_term_of_a_wrong_shape_is_told_as_in_training() -> None:
    class Short(Surrogate):
        def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
            term = Term(name="policy", value=policy.logp[:, :1], mask=batch.mask)
            return LossOutput(terms=[term])

    with pytest.raises(UserError, match="the term 'policy' has a value of shape"):
        loss_value(Short(), *make_batch())


@pytest.mark.parametrize("cls", [Surrogate, Sequence])
def test_loss_value_is_what_training_minimizes(cls: type[PolicyLoss]) -> None:
    logp, batch = make_batch()
    theta = logp.clone().requires_grad_()
    value, metrics = loss_value(cls(), theta, batch, max_completion_length=9)
    (expected,) = torch.autograd.grad(value, theta)
    found, total, _ = gradient(cls(), [[0, 1], [2, 3, 4, 5, 6]])
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert total == pytest.approx(value.item()) and metrics["loss"] == value.item()


def test_metrics_are_masked_means_and_maxima() -> None:
    logp, batch = make_batch()
    ratio = (logp - batch.behavior_logp).exp()[batch.mask]
    _, found = loss_value(Surrogate(), logp, batch)
    assert found["ratio_mean"] == pytest.approx(ratio.mean().item())
    assert found["ratio_max"] == pytest.approx(ratio.max().item())


def test_a_loss_reads_the_entropy_it_is_given_and_zeros_otherwise() -> None:
    class Entropic(Surrogate):
        needs = frozenset({"entropy"})

    logp, batch = make_batch()
    plain, _ = loss_value(Surrogate(), logp, batch)
    without, _ = loss_value(Entropic(), logp, batch)
    given, _ = loss_value(Entropic(), logp, batch, entropy=torch.full_like(logp, 2.0))
    assert without.item() == plain.item()
    assert given.item() == pytest.approx(plain.item() - 0.3 * 2.0)
