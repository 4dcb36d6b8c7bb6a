"""RLOO's loss: a whole response is one action."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ppo import clipped_surrogate
from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from algorithms.reinforce import weighted_likelihood
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.ops import Aggregation, masked_log_ratio, sequence_advantage, sequence_sum
from rlkit.registry import register


class RlooConfig(RatioConfig):
    """Settings of the three forms in use."""

    aggregation: Aggregation = "seq-mean-token-mean"
    variant: Literal["ppo_sequence", "ppo_token", "reinforce"] = "ppo_sequence"
    """"ppo_sequence" clips the product of a response's ratios (TRL), "ppo_token" each token's
    (verl), "reinforce" has no ratio (the paper)."""
    clip_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Lower clip: ratios below 1 - clip_low give no gradient where the advantage is negative."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """Upper clip: ratios above 1 + clip_high give no gradient where the advantage is positive."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Under "ppo_token": bounds the loss of negative advantages by dual_clip * |A|; null = off."""


@register("loss", "rloo")
class RLOO(RatioLoss[RlooConfig]):
    """The response as one action, with leave-one-out baselines (advantage=rloo).

        L_i = -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A),  rho = prod_t pi / prox
        L_i = -A sum_t log pi                                                  (reinforce)

    Source: arXiv:2402.14740, whose own form is "reinforce"; on fresh data both have the same
    gradient. `log_ratio_clamp` bounds log rho. "reinforce" gives the sum of a response under
    seq-mean-token-mean, and each token's share under the other aggregations.

    Public code: TRL's `RLOOTrainer` and async_rlhf are "ppo_sequence", a mean over all responses
    in which one without valid tokens adds -A (`count_empty_rows=true`; false leaves it out). verl,
    Trinity-RFT, SkyRL and OpenRLHF put the advantage into their token loss, which is "ppo_token"
    with a token mean.
    """

    sources = ("2402.14740",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Terms per response, or per token; the framework aggregates them."""
        c, mask, advantage = self.config, batch.mask, batch.advantage
        ratio = self.ratio(policy.logp, self.other(batch), mask)
        if c.variant == "reinforce":
            value = weighted_likelihood(policy.logp, advantage, mask)
            if c.aggregation == "seq-mean-token-mean":
                value = sequence_sum(value, mask)
            return policy_output(value, mask, ratio=ratio)
        moved = ratio
        if c.variant == "ppo_sequence":
            moved = self._product(policy.logp, batch)
            advantage = sequence_advantage(advantage, mask)
        value, clipped = clipped_surrogate(
            moved,
            advantage,
            1 - c.clip_low,
            1 + c.clip_high,
            dual_clip=c.dual_clip if c.variant == "ppo_token" else None,
        )
        return policy_output(value, mask, ratio=ratio, clip_fraction=clipped)

    def _product(self, logp: Tensor, batch: LossBatch) -> Tensor:
        bound = self.config.log_ratio_clamp or torch.inf
        total = masked_log_ratio(logp, self.other(batch), batch.mask).sum(-1)
        return total.clamp(-bound, bound).exp()
