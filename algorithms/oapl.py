"""Optimal-advantage policy optimization with a lagged inference policy, OAPL (arXiv:2602.19362).

The best policy under a KL penalty has log(pi* / mu) = (R - V*) / beta2, so the policy is fitted to
that by least squares, on data of any age:

    V* = beta1 log mean_group exp(R / beta1)                              (Eq. 2)
    L = mean_i (beta2 sum_t log(pi / behavior) - (R_i - V*))^2            (Eq. 3)

R - V* is the advantage's: use advantage=oapl, which holds beta1. There is no clip, no importance
weight and no further KL term; the paper trains with max_grad_norm=1e-3.

Public code: no released framework has it. TRL's experimental A*-PO loss with the lagged policy as
the reference gives the same numbers.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import Aggregation, masked_log_ratio, sequence_advantage
from rlkit.registry import register


class OaplConfig(LossConfig):
    """Settings of OAPL."""

    aggregation: Aggregation = "seq-mean-token-mean"
    beta2: Annotated[float, Field(gt=0)] = 1e-3
    """Scale of the log-ratio in the regression: how far the policy may move for its advantage."""


def regression(log_ratio: Tensor, advantage: Tensor, beta2: float) -> Tensor:
    """(beta2 S - A)^2 [B], of the responses' log-ratios S [B] and advantages A [B]."""
    return (beta2 * log_ratio - advantage).square()


@register("loss", "oapl")
class OAPL(PolicyLoss[OaplConfig]):
    """L = (beta2 S - A)^2, averaged over responses, with S the sum of log(pi / behavior)."""

    sources = ("2602.19362",)
    advantages = ("oapl",)
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """One value per response."""
        c, mask = self.config, batch.mask
        moved = masked_log_ratio(policy.logp, batch.behavior_logp, mask, c.log_ratio_clamp)
        value = regression(moved.sum(-1), sequence_advantage(batch.advantage, mask), c.beta2)
        return policy_output(value, mask, ratio=moved.exp())
