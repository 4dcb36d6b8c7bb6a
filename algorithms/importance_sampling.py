"""Importance sampling: the plain ratio times the advantage, never clipped."""

from __future__ import annotations

from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.registry import register


@register("loss", "importance_sampling")
class ImportanceSampling(RatioLoss):
    """The unclipped surrogate: unbiased for each token, with unbounded variance.

        L = -r A,  r = pi / prox

    Its gradient weight is r A. Source: the surrogate inside PPO (arXiv:1707.06347, Eq. 6).

    Public code: Trinity-RFT's `importance_sampling` and tinker's loss of that name are the same;
    SkyRL's too. Log-ratios are clamped to +-20 there as here (`log_ratio_clamp`).
    """

    Config = RatioConfig
    sources = ("1707.06347",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        ratio = self.ratio(policy.logp, self.other(batch), batch.mask)
        return policy_output(-ratio * batch.advantage, batch.mask, ratio=ratio)
