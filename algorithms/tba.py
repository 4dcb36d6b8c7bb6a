"""Trajectory balance with asynchrony, TBA (arXiv:2503.18929).

The policy that is best under a KL penalty to the reference is p*(y|x) = ref(y|x) exp(R / beta) / Z.
Trajectory balance makes the log of both sides equal on any responses, whoever sampled them:

    L = 1/(2 beta) (log Z - (R - beta S))^2,   S = sum log(pi / ref)
    log Z = sg mean_group[R - beta S]                                (VarGrad's estimate)

so dL/dlog pi = beta (S - mean S) - (R - mean R), the gradient of REINFORCE with the advantage
A - beta (S - mean S). A = R - mean comes from advantage=group_mean.

Public code: bbartoldson/tba-prime sums over the batch's tokens and divides by a constant; here it
is the mean over responses. Its newer form keeps that gradient and weighs each token by its ratio
to the policy that sampled it, without gradient beyond 8: `ratio_max`. It cuts each token's
log-ratio to the reference at +-10 (log_ratio_clamp=10). Both replace the reference now and then,
as schedule=periodic does.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import (
    Aggregation,
    apart,
    group_mean,
    masked_log_ratio,
    masked_ratio,
    sequence_advantage,
)
from rlkit.registry import register


class TbaConfig(LossConfig):
    """Settings of TBA."""

    aggregation: Aggregation = "seq-mean-token-mean"
    beta: Annotated[float, Field(gt=0)] = 0.005
    """Strength of the KL penalty whose optimum is sought. The papers' runs differ; unconfirmed."""
    ratio_max: Annotated[float, Field(gt=0)] | None = None
    """Tokens weigh pi / behavior, and nothing beyond this (the authors' newer code: 8); null = the
    paper's loss, without a ratio."""


def imbalance(log_ratio: Tensor, advantage: Tensor, group: Tensor, beta: float) -> Tensor:
    """beta (S - mean_group S) - A, [B], without gradient through the mean; S = `log_ratio` [B]."""
    return beta * (log_ratio - group_mean(log_ratio.detach(), group)) - advantage


@register("loss", "tba")
class TBA(PolicyLoss[TbaConfig]):
    """L = 1/(2 beta) [beta (S - sg mean_group S) - A]^2, S = sum log(pi / ref)."""

    sources = ("2503.18929",)
    advantages = ("group_mean",)
    scope = "group"

    def __init__(self, config: TbaConfig | None = None) -> None:
        super().__init__(config)
        ratio = {"behavior"} if self.config.ratio_max is not None else set[str]()
        self.needs = frozenset({"anchor:base", *ratio})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """One value per response."""
        c, mask = self.config, batch.mask
        group = apart(batch.group, self.counted(mask))
        moved = masked_log_ratio(policy.logp, batch.anchor_logp["base"], mask, c.log_ratio_clamp)
        advantage = sequence_advantage(batch.advantage, mask)
        error = imbalance(moved.sum(-1), advantage, group, c.beta)
        if c.ratio_max is None:
            return policy_output(error.square() / (2 * c.beta), mask, ratio=moved.exp())
        ratio = masked_ratio(policy.logp, batch.behavior_logp, mask, c.log_ratio_clamp)
        weights = ratio.clamp(max=c.ratio_max)
        value = (weights * error.detach()[:, None]).where(mask, 0.0).sum(-1)
        return policy_output(value, mask, ratio=moved.exp(), weights=weights)
