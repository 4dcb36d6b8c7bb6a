"""Asymmetric REINFORCE, AsymRE (arXiv:2506.20520, Def. 4.1 and Eq. 4).

Off-policy REINFORCE with a baseline slightly below the mean reward leans towards the good responses
and stays stable without a ratio, a clip or a KL penalty:

    L = -(R - V - delta_V) sum_t log pi(y_t)        (V = the group's mean reward, delta_V = -0.1)

The shifted baseline is the advantage's: use advantage=asymre. At delta_V >= 0 the paper sees the
policy collapse. Rewards are +-1.

Public code: Trinity-RFT runs it as its `opmd` loss with tau = 0 and a token mean; the paper, and
the default here, sums the tokens of a response (aggregation=token-mean is Trinity's).
"""

from __future__ import annotations

import torch

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import Aggregation
from rlkit.registry import register


class AsymreConfig(LossConfig):
    """Settings of AsymRE: a response's log-probs are summed."""

    aggregation: Aggregation = "seq-mean-token-sum"


@register("loss", "asymre")
class AsymRE(PolicyLoss[AsymreConfig]):
    """L = -A log pi, summed over a response."""

    sources = ("2506.20520",)
    advantages = ("asymre",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        value = -batch.advantage * torch.where(batch.mask, policy.logp, 0.0)
        return policy_output(value, batch.mask)
