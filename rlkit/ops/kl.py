"""KL estimators: the value of one, the gradient of another."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlkit.ops.masked import masked_log_ratio

KLEstimator = Literal["k1", "abs", "k2", "k3"]


class Clamps(NamedTuple):
    """Bounds on a KL estimator's value, with zero gradient beyond; None = no bound."""

    log_ratio: float | None = None
    """Clamps d to [-c, c] (verl's low_var_kl: 20)."""
    value: float | None = None
    """Clamps the result to [-c, c] (verl's low_var_kl: 10)."""


UNCLAMPED = Clamps()


def _signed_clamp(x: Tensor, bound: float | None) -> Tensor:
    return x if bound is None else x.clamp(-bound, bound)


def kl_value(
    logp: Tensor,
    ref_logp: Tensor,
    mask: Tensor,
    estimator: KLEstimator,
    clamps: Clamps = UNCLAMPED,
) -> Tensor:
    """Per-token estimator of KL(pi || ref) [B, T], with d = logp - ref_logp, 0 where masked.

    k1 = d, abs = |d|, k2 = d^2/2, k3 = e^{-d} - 1 + d (Schulman). Values: k1 and k3 are unbiased on
    samples of pi. Gradients, on samples of pi: k1 zero-mean, k2 that of KL(pi||ref), k3 that of
    KL(ref||pi).
    """
    d = masked_log_ratio(logp, ref_logp, mask, clamps.log_ratio)
    if estimator == "k1":
        value = d
    elif estimator == "abs":
        value = d.abs()
    else:
        value = 0.5 * d * d if estimator == "k2" else torch.expm1(-d) + d
    return _signed_clamp(value, clamps.value)


def kl_penalty(
    logp: Tensor,
    ref_logp: Tensor,
    mask: Tensor,
    *,
    value: KLEstimator,
    gradient: KLEstimator,
    clamps: Clamps = UNCLAMPED,
) -> Tensor:
    """A KL term [B, T]: one estimator's value, another's gradient (straight-through).

    The clamps apply to the value; the gradient of another estimator is never clamped.
    """
    shown = kl_value(logp, ref_logp, mask, value, clamps)
    if value == gradient:
        return shown
    surrogate = kl_value(logp, ref_logp, mask, gradient)
    return shown.detach() + (surrogate - surrogate.detach())


def scaled_gradient(value: Tensor, weight: Tensor) -> Tensor:
    """The value as it is, with its gradient multiplied by a detached weight."""
    surrogate = weight.detach() * value
    return value.detach() + (surrogate - surrogate.detach())


def ratio_weighted(
    value: Tensor, log_ratio: Tensor, *, clamp: float | None = None, cap: float | None = None
) -> Tensor:
    """value * min(exp(log_ratio), cap), [B, T], both factors differentiated.

    With log_ratio = log(pi / prox) it makes k1 and k3, with their own gradients, unbiased on
    samples of prox in value and gradient (arXiv:2512.02556). `log_ratio` must be masked.
    """
    ratio = _signed_clamp(log_ratio, clamp).exp()
    return value * (ratio if cap is None else ratio.clamp(max=cap))


def adaptive_coefficient(
    coefficient: float, kl: float, responses: int, *, target: float, horizon: int
) -> float:
    """The coefficient after a step: c (1 + clip(kl / target - 1, -0.2, 0.2) responses / horizon).

    Source: arXiv:1909.08593 (section 2.2), as in TRL and verl.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * responses / horizon)
