"""Masked reductions and ratios, and the aggregation of tokens to one number."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.ops.groups import is_spread

Aggregation = Literal[
    "token-mean",
    "token-sum",
    "seq-mean-token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-sum-norm",
    "token-sum-norm",
]


RatioLevel = Literal["token", "geometric", "product"]


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x over mask ([B, T] or [B]); 0 if the mask is empty."""
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
    if aggregation == "seq-mean-token-sum":
        return m
    if aggregation == "seq-mean-token-sum-norm":
        return m / norm_length
    known = ", ".join(get_args(Aggregation))
    raise UserError(f"there is no aggregation '{aggregation}' of a term; known: {known}")


def clipped_value_loss(
    values: Tensor, prox_values: Tensor, returns: Tensor, clip: float | None
) -> tuple[Tensor, Tensor]:
    """0.5 max((V - R)^2, (clip(V, V_prox -+ clip) - R)^2), and where the clip won, [B, T]."""
    free = (values - returns).square()
    if clip is None:
        return 0.5 * free, torch.zeros_like(free)
    near = values.clamp(prox_values - clip, prox_values + clip)
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

    A response without valid tokens averages over all its positions; this matters only if empty
    responses count.
    """
    return sequence_mean(advantage, mask | ~mask.any(-1, keepdim=True))


def over_tokens(x: Tensor, mask: Tensor) -> Tensor:
    """One value per response [B] on each of its valid tokens, 0 where masked: [B, T]."""
    return torch.where(mask, x[:, None], 0.0)


def whiten(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the mask, var unbiased (n - 1); 0 where masked.

    Exactly 0 if the values are equal up to rounding, which dividing by their spread would blow up.
    """
    count = mask.sum()
    values = x[mask]
    if not len(values):
        return torch.zeros_like(x)
    shifted = torch.where(mask, x - values[0], 0.0)
    centred = torch.where(mask, shifted - masked_mean(shifted, mask), 0.0)
    if not is_spread(centred.abs().max(), values.abs().max()):
        return torch.zeros_like(x)
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
