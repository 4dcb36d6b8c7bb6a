"""KL estimators: values by hand, gradients by their expectation, clamps, the adaptive factor."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlkit.ops import (
    Clamps,
    KLEstimator,
    adaptive_coefficient,
    kl_penalty,
    kl_value,
    ratio_weighted,
    scaled_gradient,
)

ALL = torch.ones(1, 1, dtype=torch.bool)
KINDS: tuple[KLEstimator, ...] = ("k1", "abs", "k2", "k3")
LOG2 = math.log(2)


def one(x: float) -> Tensor:
    return torch.tensor([[x]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "above", "below"),
    [
        ("k1", LOG2, -LOG2),
        ("abs", LOG2, LOG2),
        ("k2", LOG2**2 / 2, LOG2**2 / 2),
        ("k3", 0.5 - 1 + LOG2, 2 - 1 - LOG2),
    ],
)
def test_the_value_of_a_token_twice_or_half_as_likely(
    kind: KLEstimator, above: float, below: float
) -> None:
    assert kl_value(one(-1 + LOG2), one(-1), ALL, kind).item() == pytest.approx(above)
    assert kl_value(one(-1 - LOG2), one(-1), ALL, kind).item() == pytest.approx(below)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_policies_and_masked_tokens_have_none(kind: KLEstimator) -> None:
    mask = torch.tensor([[True, False]])
    logp = torch.tensor([[-1.0, float("-inf")]], requires_grad=True)
    value = kl_value(logp, torch.tensor([[-1.0, 3.0]]), mask, kind)
    assert value.tolist() == [[0, 0]]
    (gradient,) = torch.autograd.grad(value.sum(), logp)
    assert gradient[0, 1] == 0


P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Q = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)


def expected(kind: KLEstimator) -> tuple[float, Tensor]:
    """The estimator's value and its gradient in the logits, both in expectation under pi."""
    theta = P.log().clone().requires_grad_()
    logp = theta.log_softmax(0)
    value = kl_value(logp[None], Q.log()[None], torch.ones(1, 3, dtype=torch.bool), kind)[0]
    (gradient,) = torch.autograd.grad((P * value).sum(), theta)
    return (P * value).sum().item(), gradient


def gradient_of(divergence) -> Tensor:
    theta = P.log().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(theta.log_softmax(0)), theta)
    return gradient


def test_values_and_gradients_on_samples_of_the_policy() -> None:
    """k1 and k3 are unbiased; k2 has the gradient of KL(pi||ref), k3 that of KL(ref||pi)."""
    reverse = float((P * (P / Q).log()).sum())
    for kind in ("k1", "k3"):
        assert expected(kind)[0] == pytest.approx(reverse)
    assert expected("k2")[0] != pytest.approx(reverse)
    torch.testing.assert_close(expected("k1")[1], torch.zeros(3, dtype=torch.float64))
    of_reverse = gradient_of(lambda logp: (logp.exp() * (logp - Q.log())).sum())
    of_forward = gradient_of(lambda logp: (Q * (Q.log() - logp)).sum())
    torch.testing.assert_close(expected("k2")[1], of_reverse)
    torch.testing.assert_close(expected("k3")[1], of_forward)


@pytest.mark.parametrize("value", KINDS)
@pytest.mark.parametrize("gradient", KINDS)
def test_a_penalty_has_ones_value_and_anothers_gradient(
    value: KLEstimator, gradient: KLEstimator
) -> None:
    logp, ref = one(-0.4).requires_grad_(), one(-1.1)
    penalty = kl_penalty(logp, ref, ALL, value=value, gradient=gradient)
    assert penalty.item() == pytest.approx(kl_value(logp, ref, ALL, value).item())
    (found,) = torch.autograd.grad(penalty.sum(), logp)
    (wanted,) = torch.autograd.grad(kl_value(logp, ref, ALL, gradient).sum(), logp)
    torch.testing.assert_close(found, wanted)


def test_clamps_bound_the_value_and_stop_its_gradient() -> None:
    logp = one(-5.0).requires_grad_()
    ratio = kl_value(logp, one(-1), ALL, "k3", Clamps(log_ratio=2.0))
    assert ratio.item() == pytest.approx(math.exp(2) - 1 - 2)
    bounded = kl_value(logp, one(-1), ALL, "k3", Clamps(value=10.0))
    assert bounded.item() == 10
    assert kl_value(logp, one(-1), ALL, "k1", Clamps(value=3.0)).item() == -3
    for value in (ratio, bounded):
        (gradient,) = torch.autograd.grad(value.sum(), logp)
        assert gradient.item() == 0


def test_the_clamps_are_the_values_and_not_another_estimators_gradients() -> None:
    logp = one(-5.0).requires_grad_()
    clamps = Clamps(log_ratio=2.0, value=1.0)
    penalty = kl_penalty(logp, one(-1), ALL, value="k3", gradient="k2", clamps=clamps)
    assert penalty.item() == 1
    (gradient,) = torch.autograd.grad(penalty.sum(), logp)
    assert gradient.item() == -4, "d of k2"


def test_a_scaled_gradient_leaves_the_value() -> None:
    x, weight = one(3.0).requires_grad_(), one(0.5).requires_grad_()
    value = scaled_gradient(x * x, weight)
    found = torch.autograd.grad(value.sum(), (x, weight), allow_unused=True)
    assert value.item() == 9
    assert found[0] is not None and found[0].item() == 3
    assert found[1] is None, "the weight is detached"


def test_a_weight_by_the_ratio_is_differentiated_up_to_its_cap() -> None:
    """x exp(r) at x = 3, r = log 2: 6, and both derivatives; beyond the cap r has none."""
    x, r = one(3.0).requires_grad_(), one(LOG2).requires_grad_()
    free = ratio_weighted(x, r)
    dx, dr = torch.autograd.grad(free.sum(), (x, r))
    assert (free.item(), dx.item(), dr.item()) == pytest.approx((6, 2, 6))
    for held in (ratio_weighted(x, r, cap=1.5), ratio_weighted(x, r, clamp=math.log(1.5))):
        dx, dr = torch.autograd.grad(held.sum(), (x, r))
        assert (held.item(), dx.item(), dr.item()) == pytest.approx((4.5, 1.5, 0))


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(0.1, 1.0), (0.11, 1 + 0.1 * 256 / 1e4), (9.0, 1 + 0.2 * 256 / 1e4), (0.0, 1 - 0.2 * 0.0256)],
)
def test_the_coefficient_follows_the_error_of_the_kl(kl: float, factor: float) -> None:
    found = adaptive_coefficient(0.3, kl, 256, target=0.1, horizon=10_000)
    assert found == pytest.approx(0.3 * factor)
