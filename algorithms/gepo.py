"""Group expectation policy optimization, GEPO (arXiv:2508.17850).

A response is weighted against what its whole group was expected to be worth under the policy that
sampled it, not against its own probability there: a biased ratio of far lower variance.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ppo import clipped_surrogate
from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import (
    Aggregation,
    group_log_mean_exp,
    masked_log_ratio,
    sequence_advantage,
    sequence_mean,
)
from rlkit.registry import register

ABSENT = -1e4
"""Log-probability of a response without valid tokens: no share in its group's sums."""
Denominator = Literal["EqQ", "EqP"]


def log_expectation(
    log_p: Tensor, log_q: Tensor, group: Tensor, denominator: Denominator
) -> Tensor:
    """The log of the group's expected probability, [B], from each response's own.

    With q_hat = q / sum q: sum q_hat q (EqQ) or sum q_hat p (EqP), the sums over the group.
    """
    inside = log_q if denominator == "EqQ" else log_p
    return group_log_mean_exp(log_q + inside, group) - group_log_mean_exp(log_q, group)


class GepoConfig(LossConfig):
    """Settings of GEPO."""

    aggregation: Aggregation = "seq-mean-token-mean"
    denominator: Denominator = "EqQ"
    """What the group is expected to be worth: its probability under the policy that sampled it
    (EqQ, the paper's), or under the policy itself, then differentiated (EqP)."""
    clip_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Lower clip of the weight. The paper's value is unconfirmed."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """Upper clip of the weight. The paper's value is unconfirmed."""


@register("loss", "gepo")
class GEPO(PolicyLoss[GepoConfig]):
    """L_i = -min(w_i A_i, clip(w_i, 1 - clip_low, 1 + clip_high) A_i), w_i = p_i / E_q[q].

    p and q are a response's probability under pi and under the policy that sampled it, each per
    token: exp of the mean log-prob. E_q[q] = sum q^2 / sum q over the group. On-policy the weight
    is not 1, so that clipping acts there too. A_i is the mean of a response's advantages.

    Public code: this is HanlardResearch/HeteroRL_GEPO, including its other denominator EqP; it sums
    over the micro-batch, which must therefore be one group. The paper writes sequence
    probabilities; that p and q are length-normalized is the code's.
    """

    sources = ("2508.17850",)
    scope = "group"
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """One term per response."""
        c, mask = self.config, batch.mask
        live = mask.any(-1)
        log_p, log_q = (
            torch.where(live, sequence_mean(logp, mask), ABSENT)
            for logp in (policy.logp, batch.behavior_logp)
        )
        expected = log_expectation(log_p, log_q, batch.group, c.denominator)
        weight = masked_log_ratio(log_p, expected, live, c.log_ratio_clamp).exp()  # [B]
        advantage = sequence_advantage(batch.advantage, mask)
        value, clipped = clipped_surrogate(weight, advantage, 1 - c.clip_low, 1 + c.clip_high)
        ratio = self.ratio(policy.logp.detach(), batch.behavior_logp, mask)
        return policy_output(value, mask, ratio=ratio, weight=weight, clip_fraction=clipped)
