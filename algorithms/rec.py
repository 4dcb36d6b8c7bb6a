"""Group-relative REINFORCE off policy, the REC, REP and RED family (arXiv:2509.24203).

Group-relative REINFORCE works off policy if samples are reweighted or dropped, or the policy is
regularized:

    L = -A w M log pi + regularizer        (the ratio r = pi / behavior is detached everywhere)

with a mask M, a weight w and a regularizer. It expects advantage=group_mean.

Public code: Trinity-RFT's `rec`, whose ring has two sets of defaults (0.4/0.4 in the constructor,
0.6/2.0 in its default arguments, as here).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import masked_log_ratio, sequence_log_ratio
from rlkit.registry import register, variant

ClipMode = Literal["none", "one-side", "two-side", "ring", "gspo-one-side"]
Weight = Literal["none", "importance_sampling", "gspo_importance_sampling", "advantage"]
Regularizer = Literal["none", "k2", "forward-kl"]
ClipLow = Annotated[float, Field(gt=0, le=1)]
ClipHigh = Annotated[float, Field(gt=0)]
Interval = tuple[float, float]


class RecConfig(LossConfig):
    """Settings of the family. The defaults are the variant the paper recommends."""

    clip_mode: ClipMode = "one-side"
    """Which tokens are kept. one-side: A >= 0 and r <= 1 + clip_high, or A <= 0 and r >= 1 -
    clip_low. two-side: r within both. ring: two-side, and beyond the outer bounds those whose
    update leads back. gspo-one-side: one-side on the response's geometric mean."""
    weight: Weight = "none"
    """Detached weight: 1, the ratio, the response's geometric mean ratio, or exp(A / temp)."""
    regularizer: Regularizer = "none"
    """k2 adds coef (log r)^2, forward-kl adds -coef log pi, to each token."""
    regularizer_coef: Annotated[float, Field(ge=0)] = 0.1
    """The regularizer's coefficient."""
    temp: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of weight=advantage; `log_ratio_clamp` bounds A / temp."""
    clip_low: ClipLow = 0.6
    """Distance of the lower bound from 1."""
    clip_high: ClipHigh = 2.0
    """Distance of the upper bound from 1."""
    clip_low_prime: ClipLow = 0.6
    """clip_mode=ring: tokens with A >= 0 are also kept below 1 - clip_low_prime."""
    clip_high_prime: ClipHigh = 2.0
    """clip_mode=ring: tokens with A <= 0 are also kept above 1 + clip_high_prime."""


def kept_tokens(
    ratio: Tensor, advantage: Tensor, *, clip_mode: ClipMode, inner: Interval, outer: Interval
) -> Tensor:
    """M [B, T] bool: the tokens that `clip_mode` keeps; `outer` is read by "ring" alone."""
    low, high = ratio >= inner[0], ratio <= inner[1]
    up, down = advantage >= 0, advantage <= 0
    if clip_mode == "none":
        return torch.ones_like(low)
    if clip_mode == "two-side":
        return low & high
    if clip_mode == "ring":
        below, above = ratio <= outer[0], ratio >= outer[1]
        return (low & high) | (up & below) | (down & above)
    return (up & high) | (down & low)


@register("loss", "rec")
class REC(PolicyLoss[RecConfig]):
    """L = -A w M log pi + regularizer. The default is REC-OneSide-NoIS with a wide range."""

    sources = ("2509.24203",)
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        advantage = torch.where(mask, batch.advantage, 0.0)
        distance = masked_log_ratio(policy.logp, batch.behavior_logp, mask, c.log_ratio_clamp)
        ratio = distance.detach().exp()
        mean_ratio = sequence_log_ratio(distance.detach(), mask, "geometric").exp().expand_as(ratio)
        kept = kept_tokens(
            mean_ratio if c.clip_mode == "gspo-one-side" else ratio,
            advantage,
            clip_mode=c.clip_mode,
            inner=(1 - c.clip_low, 1 + c.clip_high),
            outer=(1 - c.clip_low_prime, 1 + c.clip_high_prime),
        )
        logp = torch.where(mask, policy.logp, 0.0)
        value = -advantage * self._weight(ratio, mean_ratio, advantage) * kept * logp
        if c.regularizer == "k2":
            value = value + c.regularizer_coef * distance.square()
        elif c.regularizer == "forward-kl":
            value = value - c.regularizer_coef * logp
        return policy_output(value, mask, ratio=ratio, clip_fraction=(~kept).to(ratio.dtype))

    def _weight(self, ratio: Tensor, mean_ratio: Tensor, advantage: Tensor) -> Tensor:
        c = self.config
        if c.weight == "none":
            return torch.ones_like(ratio)
        if c.weight != "advantage":
            return ratio if c.weight == "importance_sampling" else mean_ratio
        bound = c.log_ratio_clamp or torch.inf
        return (advantage / c.temp).clamp(-bound, bound).exp()


rec_oneside_nois = variant(
    "rec_oneside_nois",
    of=REC,
    clip_low=0.2,
    clip_high=0.2,
    doc="PPO's gradient without its ratio: clipped tokens are dropped, the others are REINFORCE.",
)
rec_oneside_is = variant(
    "rec_oneside_is",
    of=rec_oneside_nois,
    weight="importance_sampling",
    doc="The gradient of PPO's clipped surrogate to the behavior policy; not its value.",
)
rec_twoside_is = variant(
    "rec_twoside_is",
    of=rec_oneside_is,
    clip_mode="two-side",
    doc="Tokens outside the range are dropped whatever their advantage.",
)
rec_ring_is = variant(
    "rec_ring_is",
    of=rec_oneside_is,
    clip_mode="ring",
    doc="Two-sided, but tokens far outside are kept if their update leads back.",
)
rec_ring_nois = variant(
    "rec_ring_nois",
    of=rec_oneside_nois,
    clip_mode="ring",
    doc="REC-Ring-IS without the ratio.",
)
rec_gspo_nois = variant(
    "rec_gspo_nois",
    of=REC,
    aggregation="seq-mean-token-mean",
    clip_mode="gspo-one-side",
    clip_low=3e-4,
    clip_high=4e-4,
    doc="Whole responses are kept or dropped by the geometric mean of their ratios, as in GSPO.",
)
rec_gspo_is = variant(
    "rec_gspo_is",
    of=rec_gspo_nois,
    weight="gspo_importance_sampling",
    doc="GSPO's gradient (arXiv:2507.18071) to the behavior policy.",
)
red_drop = variant(
    "red_drop",
    of=REC,
    clip_mode="none",
    advantages=("red_drop",),
    doc="Plain REINFORCE; superfluous bad responses are dropped by advantage=red_drop.",
)
red_weight = variant(
    "red_weight",
    of=REC,
    clip_mode="none",
    weight="advantage",
    doc="REINFORCE with weights exp(A / temp), which favor good responses.",
)
rep_asymre = variant(
    "rep_asymre",
    of=REC,
    clip_mode="none",
    regularizer="forward-kl",
    doc="AsymRE (arXiv:2506.20520) as a regularizer: -coef log pi lowers the baseline by coef.",
)
rep_opmd = variant(
    "rep_opmd",
    of=REC,
    clip_mode="none",
    regularizer="k2",
    doc="OPMD as a regularizer: REINFORCE with coef (log r)^2 on each token.",
)
