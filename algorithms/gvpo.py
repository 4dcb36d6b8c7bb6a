"""Group-variance policy optimization, GVPO (arXiv:2504.19599), and AGRO (arXiv:2503.19612).

At the optimum under a KL penalty, R - beta log(pi / mu) is the same for all responses of a prompt.
Both methods minimize how much it varies within a group, which needs neither a ratio nor a clip:

    GVPO  L = 1/(K-1) sum_i 1/2 [(beta S_i - sg mean_group beta S) - A_i]^2,  S = sum log(pi / mu)
    AGRO  L = 1/2 Var_group(A - beta S),                                      S = sum log(pi / ref)

A = R - mean (advantage=group_mean). Detaching the mean leaves the gradient as it is, since the
centred terms sum to zero. GVPO's gradient is K/(2(K-1)) times that of pairwise OPMD.

Public code: the GVPO recipe for verl sums over all sequences of the batch and divides by K - 1
(reduction=batch-sum); the paper averages over prompts. AGRO's exact objective is unconfirmed: the
form here has the optimum its first theorem names, and is its off-policy part only.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import (
    Aggregation,
    apart,
    group_mean,
    group_share,
    group_size,
    masked_log_ratio,
    sequence_advantage,
)
from rlkit.registry import register

Beta = Annotated[float, Field(gt=0)]


def group_variance(x: Tensor, group: Tensor) -> Tensor:
    """The population variance of x [B] within each row's group, [B]."""
    return group_mean((x - group_mean(x, group)).square(), group)


def centred_regression(log_ratio: Tensor, advantage: Tensor, group: Tensor) -> Tensor:
    """1/2 [(x - sg mean_group x) - A]^2 K/(K-1), [B], with x = `log_ratio` [B] (beta included).

    Its mean over a group is the paper's 1/(K-1) sum. A group of one gives 0.
    """
    size = group_size(group, log_ratio.dtype)
    error = log_ratio - group_mean(log_ratio.detach(), group) - advantage
    unbiased = torch.where(size > 1, size / (size - 1).clamp(min=1), 0.0)
    return 0.5 * error.square() * unbiased


class GvpoConfig(LossConfig):
    """Settings of GVPO."""

    aggregation: Aggregation = "seq-mean-token-mean"
    beta: Beta = 0.1
    """Strength of the KL penalty whose optimum is sought."""
    reduction: Literal["prompt-mean", "batch-sum"] = "prompt-mean"
    """The paper's mean over prompts, or the recipe's sum over all responses of the minibatch."""


@register("loss", "gvpo")
class GVPO(PolicyLoss[GvpoConfig]):
    """L = 1/(K-1) sum_i 1/2 [(beta S_i - sg mean beta S) - A_i]^2, averaged over prompts."""

    sources = ("2504.19599",)
    advantages = ("group_mean",)
    scope = "group"
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """One value per response."""
        c, mask = self.config, batch.mask
        counted = self.counted(mask)
        group = apart(batch.group, counted)
        moved = masked_log_ratio(policy.logp, batch.behavior_logp, mask, c.log_ratio_clamp)
        advantage = sequence_advantage(batch.advantage, mask)
        value = centred_regression(c.beta * moved.sum(-1), advantage, group)
        if c.reduction == "prompt-mean":
            share = group_share(group, value.dtype, counted)
        else:
            share = counted.sum() / group_size(group, value.dtype)
        return policy_output(value * share, mask, ratio=moved.exp())


class AgroConfig(LossConfig):
    """Settings of AGRO."""

    aggregation: Aggregation = "seq-mean-token-mean"
    beta: Beta = 0.1
    """Strength of the KL penalty to the reference; the paper's value is unconfirmed."""


@register("loss", "agro")
class AGRO(PolicyLoss[AgroConfig]):
    """L = 1/2 Var_group(A - beta sum log(pi / ref)), averaged over groups.

    The variance is of the group's population; a constant added to all advantages drops out. The
    reference is the anchor's base. The exact objective of the paper is unconfirmed.
    """

    sources = ("2503.19612",)
    advantages = ("group_mean",)
    scope = "group"
    needs = frozenset({"anchor:base"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """One value per response: its group's."""
        c, mask = self.config, batch.mask
        counted = self.counted(mask)
        group = apart(batch.group, counted)
        moved = masked_log_ratio(policy.logp, batch.anchor_logp["base"], mask, c.log_ratio_clamp)
        regularized = sequence_advantage(batch.advantage, mask) - c.beta * moved.sum(-1)
        value = 0.5 * group_variance(regularized, group)
        value = value * group_share(group, moved.dtype, counted)
        return policy_output(value, mask, ratio=moved.exp())
