"""QRPO: quantile rewards make the partition function known (arXiv:2507.08068).

The optimum under a KL penalty satisfies R - beta log Z = beta log(pi / ref), where Z is
intractable, so that DPO cancels it between two responses. If the reward is its quantile among
responses of the reference, it is uniform on [0, 1] under it, and Z is known: one response is
enough.

    R_q = the share of the reference's responses to the prompt with reward <= R
    L = (R_q - beta log Z - beta S)^2,   S = sum log(pi / ref),   log Z = log beta + 1/beta

Here the reference's responses are the group's own. That is the paper's setting if the base sampled
them: buffer=stored with rollouts of it. Status: adapted. algorithm=qrpo trains on new responses,
and from its second step on the quantile is that among the current policy's.

Public code: the authors' (CLAIRE-Labo) was read as a README. Its log Z leaves out log(1 - exp(-1 /
beta)), which is below 5e-5 for beta <= 0.1.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import Aggregation, apart, masked_log_ratio
from rlkit.registry import register


class QrpoConfig(LossConfig):
    """Settings of QRPO."""

    aggregation: Aggregation = "seq-mean-token-mean"
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the KL penalty whose optimum is sought; the paper tunes it per task."""


def quantile_reward(reward: Tensor, group: Tensor) -> Tensor:
    """The share of a row's group whose reward is at most its own, [B] in (0, 1]."""
    same = group[:, None] == group[None]
    below = same & (reward[None] <= reward[:, None])
    return below.sum(-1).to(reward.dtype) / same.sum(-1)


def log_partition(beta: float) -> float:
    """log of Z = E[exp(u / beta)] for u uniform on [0, 1], as the paper writes it."""
    return math.log(beta) + 1 / beta


@register("loss", "qrpo")
class QRPO(PolicyLoss[QrpoConfig]):
    """L = (R_q - beta (log beta + 1/beta) - beta sum log(pi / ref))^2, one value per response."""

    sources = ("2507.08068",)
    scope = "group"
    needs = frozenset({"anchor:base"})
    sees_penalty = False

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """One value per response."""
        c, mask = self.config, batch.mask
        group = apart(batch.group, self.counted(mask))
        moved = masked_log_ratio(policy.logp, batch.anchor_logp["base"], mask, c.log_ratio_clamp)
        quantile = quantile_reward(batch.reward, group)
        error = quantile - c.beta * log_partition(c.beta) - c.beta * moved.sum(-1)
        return policy_output(error.square(), mask, ratio=moved.exp(), quantile=quantile)
