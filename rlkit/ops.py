"""Pure functions of tensors: masked reductions, ratios, KL estimators, aggregation, seeded streams.

Shapes: B responses, T response tokens. Every function masks the log-ratio BEFORE exp, so that
garbage at a masked position can give neither a value nor a NaN gradient.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Aggregation = Literal[
    "token-mean",
    "token-sum",
    "seq-mean-token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-sum-norm",
    "token-sum-norm",
]
KLEstimator = Literal["k1", "abs", "k2", "k3"]
RatioLevel = Literal["token", "geometric", "product"]
DIGITS = 12
"""Decimals kept where a share is computed, so that 1 - 3 * 0.1 is 0.7 and zero is zero."""


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x over mask ([B, T] or [B]); 0 where the mask is empty."""
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


def masked_log_ratio(
    logp: Tensor, other: Tensor, mask: Tensor, clamp: float | None = None
) -> Tensor:
    """logp - other [B, T], clamped to [-clamp, clamp].

    Exactly 0 (value and gradient) where masked.
    """
    delta = torch.where(mask, logp, 0.0) - torch.where(mask, other, 0.0)
    return delta if clamp is None else delta.clamp(-clamp, clamp)


def masked_ratio(logp: Tensor, other: Tensor, mask: Tensor, clamp: float | None = None) -> Tensor:
    """exp(logp - other) [B, T], 1 at masked positions."""
    return masked_log_ratio(logp, other, mask, clamp).exp()


def sequence_log_ratio(log_ratio: Tensor, mask: Tensor, level: RatioLevel) -> Tensor:
    """A masked token log-ratio [B, T] at another level.

    Its sum ("product"), its mean ("geometric"), or itself ("token").
    Sequence levels are [B, 1], ready to broadcast. A row without valid tokens gives 0.
    """
    if level == "token":
        return log_ratio
    total = log_ratio.sum(-1, keepdim=True)
    return total if level == "product" else total / mask.sum(-1, keepdim=True).clamp(min=1)


def aggregate_weights(
    mask: Tensor, aggregation: Aggregation, *, tokens: Tensor, rows: Tensor, norm_length: int
) -> Tensor:
    """The weight of each token in the aggregated loss, [B, T]: loss = sum(weight * value).

    `tokens` and `rows` are the counts over the whole minibatch, so that the sum
    over any split of the rows is the same loss. T_i = valid tokens of row i:

        token-mean               1 / tokens
        token-sum                1
        seq-mean-token-mean      1 / (rows T_i)
        seq-mean-token-sum       1 / rows
        seq-mean-token-sum-norm  1 / (rows norm_length)
        token-sum-norm           1 / norm_length
    """
    m = mask.to(tokens.dtype)
    if aggregation == "token-mean":
        return m / tokens.clamp(min=1)
    if aggregation == "token-sum":
        return m
    if aggregation == "token-sum-norm":
        return m / norm_length
    m = m / rows.clamp(min=1)
    if aggregation == "seq-mean-token-mean":
        return m / mask.sum(-1, keepdim=True).clamp(min=1)
    return m if aggregation == "seq-mean-token-sum" else m / norm_length


class Clamps(NamedTuple):
    """Bounds of a KL estimator's value, each with zero gradient beyond; None = none."""

    log_ratio: float | None = None
    """On d, to [-c, c] (verl's low_var_kl: 20)."""
    value: float | None = None
    """On the result, to [-c, c] (verl's low_var_kl: 10)."""


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

    The clamps are the value's; a gradient by another estimator is never clamped.
    """
    shown = kl_value(logp, ref_logp, mask, value, clamps)
    if value == gradient:
        return shown
    carrier = kl_value(logp, ref_logp, mask, gradient)
    return shown.detach() + (carrier - carrier.detach())


def scaled_gradient(value: Tensor, weight: Tensor) -> Tensor:
    """The value as it is, with its gradient multiplied by a detached weight."""
    carrier = weight.detach() * value
    return value.detach() + (carrier - carrier.detach())


def ratio_weighted(
    value: Tensor, log_ratio: Tensor, *, clamp: float | None = None, cap: float | None = None
) -> Tensor:
    """value * min(exp(log_ratio), cap), [B, T], both factors differentiated.

    With log_ratio = log(pi / prox) it makes a KL estimator unbiased on samples of prox
    (arXiv:2512.02556). `log_ratio` must be masked.
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


def staircase(step: int, start: int, interval: int, decrement: float, floor: float) -> float:
    """max(1 - decrement ceil(max(step - start, 0) / interval), floor), without rounding noise."""
    falls = math.ceil(max(step - start, 0) / interval)
    return round(max(1 - decrement * falls, floor), DIGITS)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None
) -> tuple[Tensor, Tensor]:
    """0.5 max((V - R)^2, (clip(V, V_old -+ clip) - R)^2), and where the clip won, [B, T]."""
    free = (values - returns).square()
    if clip is None:
        return 0.5 * free, torch.zeros_like(free)
    near = values.clamp(old_values - clip, old_values + clip)
    held = (near - returns).square()
    return 0.5 * torch.max(free, held), (held > free).to(values.dtype)


def sequence_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x [B, T] over each row's valid tokens, [B]; 0 for a row without any."""
    return torch.where(mask, x, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)


def sequence_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum of x [B, T] over each row's valid tokens, [B]."""
    return torch.where(mask, x, 0.0).sum(-1)


def sequence_advantage(advantage: Tensor, mask: Tensor) -> Tensor:
    """The advantage of each response [B]: its mean over the valid tokens.

    A response without any has no token to weigh, so all its places count; that matters only where
    empty responses count.
    """
    return sequence_mean(advantage, mask | ~mask.any(-1, keepdim=True))


def hash_uniform(x: Tensor) -> Tensor:
    """A number in [0, 1) for each entry of x, decided by its value alone.

    A random choice by it does not depend on order, padding or micro-batches, and repeats on resume.
    """
    scaled = x.detach().double() * 12345.678901 + 0.6180339887
    return torch.frac(torch.frac(scaled.abs()) * 97531.2468)


def group_sum(x: Tensor, group: Tensor) -> Tensor:
    """Sum of x [B] over the rows of the same group, given back to each row [B]."""
    index, inverse = torch.unique(group, return_inverse=True)
    return x.new_zeros(len(index)).index_add(0, inverse, x)[inverse]


def group_mean(x: Tensor, group: Tensor) -> Tensor:
    """Mean of x [B] over the rows of the same group, given back to each row [B]."""
    return group_sum(x, group) / group_size(group, x.dtype)


def group_max(x: Tensor, group: Tensor) -> Tensor:
    """Maximum of x [B] over the rows of the same group, given back to each row [B]."""
    index, inverse = torch.unique(group, return_inverse=True)
    lowest = x.new_full((len(index),), -torch.inf)
    return lowest.scatter_reduce(0, inverse, x, "amax")[inverse]


def group_log_mean_exp(x: Tensor, group: Tensor) -> Tensor:
    """log mean exp(x) over the rows of the same group, without overflow, for each row [B]."""
    top = group_max(x, group)
    return top + group_mean((x - top).exp(), group).log()


def group_size(group: Tensor, dtype: torch.dtype) -> Tensor:
    """How many rows are in each row's group [B]."""
    inverse: Tensor = torch.unique(group, return_inverse=True)[1]
    return torch.bincount(inverse).to(dtype)[inverse]


def group_share(group: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight [B] that turns a mean over rows into a mean over groups of the groups' means.

    It is B / (number of groups * size of the row's group): 1 where all groups are equally large.
    """
    return len(group) / (len(torch.unique(group)) * group_size(group, dtype))


def group_centred(x: Tensor, group: Tensor) -> Tensor:
    """The difference of x [B] to its group's mean, exactly 0 where all of a group are equal.

    Rounding in a plain mean would leave 1e-9 there, which a division by the group's spread makes
    large.
    """
    index, inverse = torch.unique(group, return_inverse=True)
    member = x.new_zeros(len(index)).index_put((inverse,), x)[inverse]
    shifted = x - member
    return shifted - group_mean(shifted, group)


def over_tokens(x: Tensor, mask: Tensor) -> Tensor:
    """One value a response [B] on each of its valid tokens, 0 where masked: [B, T]."""
    return torch.where(mask, x[:, None], 0.0)


def whiten(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the mask, var unbiased (n - 1); 0 where masked."""
    count = mask.sum()
    mean = masked_mean(x, mask)
    centred = torch.where(mask, x - mean, 0.0)
    var = (centred**2).sum() / (count - 1).clamp(min=1)
    return centred * torch.rsqrt(var + eps)


def effective_sample_size(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """(sum w)^2 / (n sum w^2) in (0, 1], with w = exp(log_ratio) over the mask.

    Computed without overflow.
    """
    flat = log_ratio[mask].double()
    if flat.numel() == 0:
        return torch.ones((), dtype=torch.float64)
    log_ess: Tensor = 2 * flat.logsumexp(0) - (2 * flat).logsumexp(0) - float(np.log(flat.numel()))
    return log_ess.exp()


def stream_seed(seed: int, stream: str, *index: int) -> int:
    """A 63-bit seed for a named stream at a position: every random draw of a run starts here."""
    text = f"{seed}/{stream}/" + "/".join(map(str, index))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream_rng(seed: int, stream: str, *index: int) -> np.random.Generator:
    """A numpy generator for a named stream at a position."""
    return np.random.default_rng(stream_seed(seed, stream, *index))
