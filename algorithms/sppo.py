"""sPPO: the log-ratio as the surrogate, inside a symmetric window."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import masked_log_ratio
from rlkit.registry import register


class SppoConfig(LossConfig):
    """Settings of the window."""

    epsilon: Annotated[float, Field(gt=0)] = 0.3
    """Tokens with ratios outside [1 / (1 + epsilon), 1 + epsilon] give no gradient."""


@register("loss", "sppo")
class SPPO(PolicyLoss[SppoConfig]):
    """Softmax PPO: the advantage times the log-ratio, cut if the policy has moved too far.

        L = -A log r 1[1 / (1 + epsilon) <= r <= 1 + epsilon],  r = pi / behavior

    Source: arXiv:2108.05828, in Trinity-RFT's token form; the window and its 0.3 are that code's
    (not read in the paper). Its gradient weight is A inside the window.

    Public code: Trinity-RFT's `sppo`, token mean. verl-recipe's SPPO is another method
    (self-play preference optimization).
    """

    sources = ("2108.05828",)
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        log_ratio = masked_log_ratio(policy.logp, batch.behavior_logp, mask, c.log_ratio_clamp)
        kept = (log_ratio.abs() <= math.log1p(c.epsilon)).to(log_ratio.dtype)
        return policy_output(
            -batch.advantage * log_ratio * kept,
            mask,
            ratio=log_ratio.exp(),
            clip_fraction=1 - kept,
        )
