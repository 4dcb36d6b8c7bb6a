"""GMPO: the geometric mean of a response's clipped ratios."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.ops import Aggregation, masked_log_ratio, sequence_mean
from rlkit.registry import register


def pessimistic_log_ratio(log_ratio: Tensor, sign: Tensor, low: float, high: float) -> Tensor:
    """sign min(sign d, sign clip(d, -low, high)) [B, T]: cut only where A would profit."""
    return sign * torch.min(sign * log_ratio, sign * log_ratio.clamp(-low, high))


class GmpoConfig(RatioConfig):
    """Settings of the clip, which is on the log-ratio."""

    aggregation: Aggregation = "seq-mean-token-mean"
    clip_low: Annotated[float, Field(gt=0)] = 0.4
    """Lower clip: log-ratios below -clip_low give no gradient where the advantage is negative."""
    clip_high: Annotated[float, Field(gt=0)] = 0.4
    """Upper clip: log-ratios above clip_high give no gradient where the advantage is positive."""


@register("loss", "gmpo")
class GMPO(RatioLoss[GmpoConfig]):
    """The geometric mean in place of GRPO's arithmetic one, which outlying ratios move less.

        d_t = sgn(A) min(sgn(A) log r_t, sgn(A) clip(log r_t, -clip_low, clip_high))
        L_i = -A exp(mean_t d_t), averaged over responses

    Source: arXiv:2507.20673. If the advantage differs between tokens, d_t takes each token's
    sign and L_i their mean.

    Public code: verl's `compute_policy_loss_geo_mean` and TRL's experimental GMPO agree, both
    without a clamp on log-ratios. A response without valid tokens adds 0 in verl (as here) and -A
    in TRL; both count it (`count_empty_rows=true`).
    """

    sources = ("2507.20673",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """A term per response; the framework aggregates them."""
        c, mask = self.config, batch.mask
        log_ratio = masked_log_ratio(policy.logp, self.other(batch), mask, c.log_ratio_clamp)
        sign = batch.advantage.sign()
        kept = pessimistic_log_ratio(log_ratio, sign, c.clip_low, c.clip_high)
        value = -sequence_mean(batch.advantage, mask) * sequence_mean(kept, mask).exp()
        cut = (sign != 0) & (kept != log_ratio)
        return policy_output(
            value, mask, ratio=log_ratio.exp(), clip_fraction=cut.to(log_ratio.dtype)
        )
