"""`loss_value`: what training minimizes, for one batch and without a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch, PolicyTerms
from rlkit.interfaces import PolicyLoss
from rlkit.training.aggregation import DEFAULT_MAX_COMPLETION_LENGTH
from rlkit.training.objective import Objective
from rlkit.training.sums import MetricSums, sums_of


def loss_value(
    loss: PolicyLoss[Any],
    logp: Tensor,
    batch: LossBatch,
    *,
    entropy: Tensor | None = None,
    max_completion_length: int = DEFAULT_MAX_COMPLETION_LENGTH,
) -> tuple[Tensor, dict[str, float]]:
    """The scalar that training minimizes for this batch, and the reduced metrics.

    The scalar is differentiable in `logp` [B, T].

    `entropy` [B, T] is the policy's token entropy (zeros when left out); `max_completion_length` is
    the length seq-mean-token-sum-norm divides by if the loss's `norm_length` is null.
    """
    objective = Objective(loss, max_completion_length=max_completion_length)
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp) if entropy is None else entropy)
    out = loss.checked(policy, batch)
    value = objective.reduce(out.terms, objective.counts(out.terms))
    found = MetricSums().plus(sums_of(out.metrics, batch.mask.cpu()))
    return value, {"loss": value.item(), **found.means()}
