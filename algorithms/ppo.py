"""Clipped surrogates on the token ratio.

PPO (arXiv:1707.06347), GRPO (arXiv:2402.03300) and Dr. GRPO (arXiv:2503.20783). They share the
surrogate and differ in how its tokens are aggregated, and in the advantage they are composed with.
"""

from __future__ import annotations

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import TypeVar

from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.registry import register, variant

ClipHigh = Annotated[float, Field(gt=0)]


def clipped_surrogate(
    ratio: Tensor,
    advantage: Tensor,
    low: float | Tensor,
    high: float | Tensor,
    *,
    dual_clip: float | Tensor | None = None,
    delta: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The pessimistic surrogate and where it has no gradient, both [B, T].

        L = -min(r A, clip(r, low, high) A)                      (arXiv:1707.06347, Eq. 7)
        r is min(r, delta) in the unclipped branch               (TRL's two-sided clipping)
        L = min(L, -dual_clip A) where A < 0                     (arXiv:1912.09729, Eq. 5)

    `low` and `high` bound the ratio itself. The second result is 1 where the clip cut the gradient.
    """
    low, high = (torch.as_tensor(b, dtype=ratio.dtype, device=ratio.device) for b in (low, high))
    free = ratio if delta is None else ratio.clamp(max=delta)
    value = -torch.min(free * advantage, ratio.clamp(low, high) * advantage)
    cut_negative = ratio < low
    for cap in (delta, dual_clip):
        if cap is not None:
            cut_negative |= ratio > cap
    if dual_clip is not None:
        value = torch.where(advantage < 0, torch.min(value, -dual_clip * advantage), value)
    clipped = torch.where(advantage > 0, ratio > high, (advantage < 0) & cut_negative)
    return value, clipped.to(ratio.dtype)


class PPOConfig(RatioConfig):
    """Settings of the clipped surrogate."""

    clip_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Lower clip: ratios below 1 - clip_low give no gradient where the advantage is negative."""
    clip_high: ClipHigh = 0.2
    """Upper clip: ratios above 1 + clip_high give no gradient where the advantage is positive."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Bounds the loss of negative advantages by dual_clip * |A| (arXiv:1912.09729); null = off."""
    delta: Annotated[float, Field(gt=1)] | None = None
    """Caps the unclipped ratio, which bounds the loss of negative advantages (TRL's `delta`); null
    = off."""

    @model_validator(mode="after")
    def _delta_beyond_clip(self) -> Self:
        if self.delta is not None and self.delta <= 1 + self.clip_high:
            raise ValueError(
                f"delta={self.delta} must be above 1 + clip_high; raise delta or set it to null"
            )
        return self

    def surrogate(self, ratio: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
        """The surrogate with these settings and where the clip cut its gradient, [B, T] each."""
        return clipped_surrogate(
            ratio,
            advantage,
            1 - self.clip_low,
            1 + self.clip_high,
            dual_clip=self.dual_clip,
            delta=self.delta,
        )


PC = TypeVar("PC", bound=PPOConfig, default=PPOConfig)


@register("loss", "ppo")
class PPO(RatioLoss[PC]):
    """L = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), averaged over tokens.

    The source is arXiv:1707.06347, Eq. 7.

    Public code: agrees with verl's vanilla loss (whose dual clip of 3 is off here), OpenRLHF's
    PolicyLoss and TRL's loss_type="bnpo".
    """

    Config = PPOConfig
    sources = ("1707.06347",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c = self.config
        ratio = self.ratio(policy.logp, self.other(batch), batch.mask)
        value, clipped = c.surrogate(ratio, batch.advantage)
        return policy_output(value, batch.mask, ratio=ratio, clip_fraction=clipped)


grpo = variant(
    "grpo",
    of=PPO,
    aggregation="seq-mean-token-mean",
    sources=("2402.03300",),
    doc="""GRPO's surrogate: PPO's, averaged over a response's tokens and then over responses.

    The source is arXiv:2402.03300, Eq. 3; its KL term is the anchor's (anchor=base, with beta 0.04
    there, unconfirmed).

    Public code: agrees with TRL's loss_type="grpo" and verl's seq-mean-token-mean. The defaults of
    both are a token mean (aggregation=token-mean).
    """,
)

dr_grpo = variant(
    "dr_grpo",
    of=PPO,
    aggregation="seq-mean-token-sum-norm",
    sources=("2503.20783",),
    doc="""Dr. GRPO's surrogate: PPO's, summed over tokens and divided by a constant length.

    The source is arXiv:2503.20783.

    Public code: agrees with the authors' and with TRL's loss_type="dr_grpo", whose constant is the
    generation limit, the default here too. verl divides by the padded length of the batch unless
    told otherwise (norm_length).
    """,
)

dapo = variant(
    "dapo",
    of=PPO,
    clip_high=0.28,
    sources=("2503.14476",),
    doc="""DAPO's surrogate: PPO's with clip-higher (arXiv:2503.14476, Eqs. 8-12).

    Its dynamic sampling is correction=zero_variance_filter, its soft punishment reward=overlong.

    Public code: agrees with TRL's loss_type="dapo" and with verl's recipe but for its dual clip of
    10 (dual_clip=10).
    """,
)

reinforce_pp = variant(
    "reinforce_pp",
    of=PPO,
    sources=("2501.03262",),
    doc="""REINFORCE++: PPO's token clip without a critic, for advantage=reinforce_pp.

        L = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A),  r = pi / prox

    Source: arXiv:2501.03262. The method is in the advantage: the reward-to-go with the KL penalty
    in the reward (Eq. 4), normalized over the tokens of the whole batch (Eq. 5).

    Public code: verl, slime, OpenRLHF and NeMo-RL give the estimator its name and use their PPO
    loss, token mean.
    """,
)
