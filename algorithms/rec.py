"""Group-relative REINFORCE off policy, the REC, REP and RED family (arXiv:2509.24203).

Group-relative REINFORCE works off policy if samples are reweighed or dropped, or the policy held:

    L = -A w M log pi + regulariser        (the ratio r = pi / behavior is detached everywhere)

with a mask M, a weight w and a regulariser. It wants advantage=group_mean.

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
from rlkit.ops import Aggregation, masked_log_ratio, sequence_log_ratio
from rlkit.registry import register

ClipMode = Literal["none", "one-side", "two-side", "ring", "gspo-one-side"]
Weight = Literal["none", "importance_sampling", "gspo_importance_sampling", "advantage"]
Regularizer = Literal["none", "k2", "forward-kl"]
ClipLow = Annotated[float, Field(gt=0, le=1)]
ClipHigh = Annotated[float, Field(gt=0)]


class RecConfig(LossConfig):
    """Settings of the family. The defaults are the variant the paper recommends."""

    clip_mode: ClipMode = "one-side"
    """Which tokens push. one-side: A >= 0 and r <= 1 + clip_high, or A <= 0 and r >= 1 - clip_low.
    two-side: r within both. ring: two-side, and beyond the outer bounds where the push leads back.
    gspo-one-side: one-side on the response's geometric mean."""
    weight: Weight = "none"
    """Detached weight: 1, the ratio, the response's geometric mean ratio, or exp(A / temp)."""
    regularizer: Regularizer = "none"
    """k2 adds coef (log r)^2, forward-kl adds -coef log pi, to each token."""
    regularizer_coef: Annotated[float, Field(ge=0)] = 0.1
    """The regulariser's coefficient."""
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


def kept_tokens(ratio: Tensor, advantage: Tensor, c: RecConfig) -> Tensor:
    """M [B, T] bool: the tokens that `clip_mode` lets push."""
    low, high = ratio >= 1 - c.clip_low, ratio <= 1 + c.clip_high
    up, down = advantage >= 0, advantage <= 0
    if c.clip_mode == "none":
        return torch.ones_like(low)
    if c.clip_mode == "two-side":
        return low & high
    if c.clip_mode == "ring":
        below, above = ratio <= 1 - c.clip_low_prime, ratio >= 1 + c.clip_high_prime
        return (low & high) | (up & below) | (down & above)
    return (up & high) | (down & low)


@register("loss", "rec")
class REC(PolicyLoss[RecConfig]):
    """L = -A w M log pi + regulariser. The default is REC-OneSide-NoIS with a wide range."""

    Config = RecConfig
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        advantage = torch.where(mask, batch.advantage, 0.0)
        distance = masked_log_ratio(policy.logp, batch.behavior_logp, mask, c.log_ratio_clamp)
        ratio = distance.detach().exp()
        mean_ratio = sequence_log_ratio(distance.detach(), mask, "geometric").exp().expand_as(ratio)
        kept = kept_tokens(mean_ratio if c.clip_mode == "gspo-one-side" else ratio, advantage, c)
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


class RecOneSideNoISConfig(RecConfig):
    """Settings of REC-OneSide-NoIS with PPO's range."""

    clip_low: ClipLow = 0.2
    clip_high: ClipHigh = 0.2


@register("loss", "rec_oneside_nois")
class RecOneSideNoIS(REC):
    """PPO's gradient without its ratio: clipped tokens are dropped, the others are REINFORCE."""

    Config = RecOneSideNoISConfig


class RecOneSideISConfig(RecOneSideNoISConfig):
    """Settings of REC-OneSide-IS."""

    weight: Weight = "importance_sampling"


@register("loss", "rec_oneside_is")
class RecOneSideIS(REC):
    """The gradient of PPO's clipped surrogate to the behaviour policy; not its value."""

    Config = RecOneSideISConfig


class RecTwoSideISConfig(RecOneSideISConfig):
    """Settings of REC-TwoSide-IS."""

    clip_mode: ClipMode = "two-side"


@register("loss", "rec_twoside_is")
class RecTwoSideIS(REC):
    """Tokens outside the range are dropped whatever their advantage."""

    Config = RecTwoSideISConfig


class RecRingISConfig(RecOneSideISConfig):
    """Settings of REC-Ring-IS."""

    clip_mode: ClipMode = "ring"


@register("loss", "rec_ring_is")
class RecRingIS(REC):
    """Two-sided, but tokens far outside are kept where their push leads back."""

    Config = RecRingISConfig


class RecRingNoISConfig(RecOneSideNoISConfig):
    """Settings of REC-Ring-NoIS."""

    clip_mode: ClipMode = "ring"


@register("loss", "rec_ring_nois")
class RecRingNoIS(REC):
    """REC-Ring-IS without the ratio."""

    Config = RecRingNoISConfig


class RecGspoNoISConfig(RecConfig):
    """Settings of REC-GSPO-NoIS: GSPO's ranges and its mean over responses."""

    aggregation: Aggregation = "seq-mean-token-mean"
    clip_mode: ClipMode = "gspo-one-side"
    clip_low: ClipLow = 3e-4
    clip_high: ClipHigh = 4e-4


@register("loss", "rec_gspo_nois")
class RecGspoNoIS(REC):
    """Whole responses are kept or dropped by the geometric mean of their ratios."""

    Config = RecGspoNoISConfig


class RecGspoISConfig(RecGspoNoISConfig):
    """Settings of REC-GSPO-IS."""

    weight: Weight = "gspo_importance_sampling"


@register("loss", "rec_gspo_is")
class RecGspoIS(REC):
    """GSPO's gradient (arXiv:2507.18071) to the behaviour policy."""

    Config = RecGspoISConfig


class RedDropConfig(RecConfig):
    """Settings of RED-Drop: nothing is clipped or reweighed."""

    clip_mode: ClipMode = "none"


@register("loss", "red_drop")
class RedDrop(REC):
    """Plain REINFORCE; superfluous bad responses are dropped by advantage=red_drop."""

    Config = RedDropConfig
    advantages = ("red_drop",)


class RedWeightConfig(RedDropConfig):
    """Settings of RED-Weight."""

    weight: Weight = "advantage"


@register("loss", "red_weight")
class RedWeight(REC):
    """REINFORCE with weights exp(A / temp), which favour good responses."""

    Config = RedWeightConfig


class RepAsymreConfig(RedDropConfig):
    """Settings of REP-AsymRE."""

    regularizer: Regularizer = "forward-kl"


@register("loss", "rep_asymre")
class RepAsymRE(REC):
    """AsymRE (arXiv:2506.20520) as a regulariser: -coef log pi lowers the baseline by coef."""

    Config = RepAsymreConfig


class RepOpmdConfig(RedDropConfig):
    """Settings of REP-OPMD."""

    regularizer: Regularizer = "k2"


@register("loss", "rep_opmd")
class RepOPMD(REC):
    """OPMD as a regulariser: REINFORCE with coef (log r)^2 on each token."""

    Config = RepOpmdConfig
