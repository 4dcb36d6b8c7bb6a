"""CTPO: the cumulative ratio with a clip window that grows along the response (arXiv:2605.07331).

What a token's state has drifted by is the product of the ratios of its whole prefix, not its own
ratio. CTPO clips that product. Its logarithm is a sum over t tokens, whose spread grows as
sqrt(t), and so does the window:

    log R_t = sum_{s<=t} log r_s,   r = pi / prox           (gradient through the own token only)
    L = -min(R A, exp(clip(log R, -clip_low t^p, clip_high t^p)) A),  A < 0: at most -exp(c t^p) A

t counts the valid tokens from 1.

Public code: agrees with the authors' (horizon-llm/CTPO), "cum-token-cumprod-la"; mean=true is its
"cum-token-geomean-la", for which it recommends power=-0.5, and power=0 with wider windows is close
to its first version, whose window is not in log-space. It cuts log R at 10, as here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from algorithms.ppo import clipped_surrogate
from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.ops import masked_log_ratio
from rlkit.registry import register

LARGEST = 10.0
"""The cumulative log-ratio is cut here, without gradient beyond, so that exp stays finite."""
Width = Annotated[float, Field(gt=0)]


class CtpoConfig(RatioConfig):
    """Settings of CTPO, in log-space; the defaults are the authors'."""

    clip_low: Width = 0.025
    """The log of the cumulative ratio is clipped below at -clip_low t^power."""
    clip_high: Width = 0.05
    """And above at clip_high t^power."""
    dual_clip: Width | None = 0.05
    """Negative advantages: the loss is at most exp(dual_clip t^power) |A|; null = no bound."""
    power: Annotated[float, Field(ge=-1, le=1)] = 0.5
    """How the window grows with the position t; 0 = the same everywhere."""
    mean: bool = False
    """Whether log R is the mean of the prefix's log-ratios and not their sum."""


def positions(mask: Tensor) -> Tensor:
    """The number of valid tokens up to and including each, [B, T] int64; at least 1."""
    return mask.cumsum(-1).clamp(min=1)


def cumulative(log_ratio: Tensor, at: Tensor | None) -> Tensor:
    """sum_{s<=t} log r_s [B, T], or its mean over the `at` [B, T] tokens so far.

    Only the own token's log-ratio carries a gradient, with weight 1.
    """
    total = log_ratio.detach().cumsum(-1)
    if at is not None:
        total = total / at
    return total + log_ratio - log_ratio.detach()


@register("loss", "ctpo")
class CTPO(RatioLoss[CtpoConfig]):
    """PPO's surrogate on R_t = prod_{s<=t} r_s, with a window in log R that grows as t^power."""

    sources = ("2605.07331",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask, advantage = self.config, batch.mask, batch.advantage
        log_ratio = masked_log_ratio(policy.logp, self.other(batch), mask, c.log_ratio_clamp)
        at = positions(mask)
        ratio = cumulative(log_ratio, at if c.mean else None).clamp(max=LARGEST).exp()
        grown = at.to(ratio.dtype) ** c.power
        value, clipped = clipped_surrogate(
            ratio,
            advantage,
            (-c.clip_low * grown).exp(),
            (c.clip_high * grown).exp(),
            dual_clip=None if c.dual_clip is None else (c.dual_clip * grown).exp(),
        )
        return policy_output(
            value, mask, ratio=log_ratio.exp(), clip_fraction=clipped, cumulative=ratio
        )
