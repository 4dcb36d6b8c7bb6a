"""Online policy mirror descent, OPMD: Kimi k1.5 (arXiv:2501.12599) and its relatives.

The reward is fitted by tau log(pi / behavior), the form it has at the optimum of a step that is
held to the policy that sampled the data. With S = sum_t log(pi / behavior) of a response:

    kimi        L = -(A sum_t log pi - tau/2 S^2)                        (from Eq. 3)
    simple      L = -A log pi / (1 + tau)                                per token
    kimi_token  L = -A log pi + tau/2 (log pi / behavior)^2              per token
    pairwise    L = 1/K^2 sum_{i<j} (a_i - a_j)^2,  a = A - tau S        per group

The baseline is the advantage's: use advantage=opmd (the mean, or tau log mean exp(R / tau)). In
`pairwise` it drops out.

Public code: `simple` is Trinity-RFT's `opmd` and the first order of `pairwise` at pi = behavior;
`kimi_token` is ROLL's kimi15; `pairwise` is in Trinity-RFT's history, untested there
(arXiv:2509.24203 describes it).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.gvpo import group_variance
from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import Aggregation, apart, group_share, masked_log_ratio, sequence_advantage
from rlkit.registry import register, variant

Variant = Literal["kimi", "simple", "kimi_token", "pairwise"]


class OpmdConfig(LossConfig):
    """Settings of OPMD. The defaults are Kimi's."""

    aggregation: Aggregation = "seq-mean-token-mean"
    variant: Variant = "kimi"
    """Which of the four surrogates; `simple` and `kimi_token` are per token and go with
    aggregation=token-mean."""
    tau: Annotated[float, Field(ge=0)] = 0.1
    """Strength of the pull to the policy that sampled the data. Kimi's value is unconfirmed."""


def kimi(logp: Tensor, moved: Tensor, advantage: Tensor, tau: float) -> Tensor:
    """-(sum_t A log pi - tau/2 S^2) [B], of masked log-probs and log-ratios [B, T]."""
    return 0.5 * tau * moved.sum(-1).square() - (advantage * logp).sum(-1)


def kimi_token(logp: Tensor, moved: Tensor, advantage: Tensor, tau: float) -> Tensor:
    """-A log pi + tau/2 (log r)^2, [B, T]."""
    return 0.5 * tau * moved.square() - advantage * logp


@register("loss", "opmd")
class OPMD(PolicyLoss[OpmdConfig]):
    """Mirror descent on the reward; by default Kimi's, one value per response."""

    sources = ("2501.12599",)
    advantages = ("opmd",)

    def __init__(self, config: OpmdConfig | None = None) -> None:
        super().__init__(config)
        self.scope = "group" if self.config.variant == "pairwise" else "token"
        self.needs = frozenset() if self.config.variant == "simple" else frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """One value per response (kimi, pairwise) or per token."""
        c, mask = self.config, batch.mask
        logp = torch.where(mask, policy.logp, 0.0)
        if c.variant == "simple":
            return policy_output(-batch.advantage * logp / (1 + c.tau), mask)
        moved = masked_log_ratio(policy.logp, batch.behavior_logp, mask, c.log_ratio_clamp)
        if c.variant == "pairwise":
            gap = sequence_advantage(batch.advantage, mask) - c.tau * moved.sum(-1)
            counted = self.counted(mask)
            group = apart(batch.group, counted)
            value = group_variance(gap, group) * group_share(group, gap.dtype, counted)
        else:
            surrogate = kimi if c.variant == "kimi" else kimi_token
            value = surrogate(logp, moved, batch.advantage, c.tau)
        return policy_output(value, mask, ratio=moved.exp())


opmd_simple = variant(
    "opmd_simple",
    of=OPMD,
    variant="simple",
    aggregation="token-mean",
    tau=1.0,
    sources=("2509.24203",),
    doc="L = -A log pi / (1 + tau): REINFORCE whose step tau scales, Trinity-RFT's OPMD.",
)
opmd_pairwise = variant(
    "opmd_pairwise",
    of=OPMD,
    variant="pairwise",
    sources=("2509.24203",),
    doc="L = the group's variance of A - tau S, which is 1/K^2 sum_{i<j} (a_i - a_j)^2.",
)
opmd_kimi_token = variant(
    "opmd_kimi_token",
    of=OPMD,
    variant="kimi_token",
    aggregation="token-mean",
    doc="L = -A log pi + tau/2 (log r)^2 per token, ROLL's kimi15.",
)
