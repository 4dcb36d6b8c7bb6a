"""Balanced policy optimisation with adaptive clipping, BAPO (arXiv:2510.18927).

On stale data negative tokens dominate the update. Each minibatch, the clip bounds are moved until
the positive tokens have their share of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from algorithms.ppo import clipped_surrogate
from algorithms.ratio import policy_output, rows_of
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import register, variant

ROUNDING = 1e-9
"""Slack when a range is divided into decimal steps."""
POS_NEG_EPS = 1e-8
TINY = 1e-300
Positive = Annotated[float, Field(gt=0)]
LowBound = Annotated[float, Field(gt=0, le=1)]
HighBound = Annotated[float, Field(ge=1)]
DualClip = Annotated[float, Field(gt=1)]
Order = Literal["high_first", "low_first"]
Metric = Literal["fraction", "pos_neg"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The clip bounds the search ended at, the balance they give, and how many steps it took."""

    low: float
    high: float
    balance: float
    steps: int


def bound_values(start: float, stop: float, step: float, *, partial: bool) -> Tensor:
    """The values start, start + step, ... up to stop: [K] float64.

    `partial` adds a last, shorter step that reaches stop. Steps are counted as integers: repeated
    addition of 0.02 from 0.6 would miss 0.9.
    """
    span = (stop - start) / step
    steps = math.ceil(span - ROUNDING) if partial else math.floor(span + ROUNDING)
    return (start + step * torch.arange(steps + 1, dtype=torch.float64)).clamp(max=stop)


def capped_sums(x: Tensor, weight: Tensor, caps: Tensor) -> Tensor:
    """sum_n weight_n min(x_n, cap_k) for each of the ascending caps [K], in one pass over x [N]."""
    first = torch.bucketize(x, caps)  # the first k with x <= cap_k, K where there is none
    zeros = weight.new_zeros(len(caps) + 1)
    mass = zeros.index_add(0, first, weight)
    below = zeros.index_add(0, first, weight * x).cumsum(0)[:-1]
    return below + caps * (mass.sum() - mass.cumsum(0)[:-1])


class BapoConfig(LossConfig):
    """Settings of the search and of the clip. The defaults are Algorithm 1's."""

    order: Order = "high_first"
    """Which bound moves first, to its end, before the other moves."""
    metric: Metric = "fraction"
    """The balance: positive over all (Eq. 8), or positive over negative (the authors' code)."""
    prob_weight: bool = True
    """Whether tokens count in the balance by their probability under the policy that sampled them
    (Eq. 8)."""
    partial_step: bool = False
    """Whether the last step of a bound may be shorter, to end at its maximum (the authors' code).
    """
    target: Positive = 0.4
    """The balance at which the search stops. 0.4 of all is 0.67 positive over negative."""
    c_low_start: LowBound = 0.6
    """Lower bound of the ratio where the search starts."""
    c_low_max: LowBound = 0.9
    """Highest lower bound."""
    c_high_start: HighBound = 1.2
    """Upper bound of the ratio where the search starts."""
    c_high_max: HighBound = 3.0
    """Highest upper bound."""
    low_step: Positive = 0.02
    """Step of the lower bound."""
    high_step: Positive = 0.05
    """Step of the upper bound."""
    dual_clip: DualClip | None = None
    """Bounds the loss of negative advantages by dual_clip * |A|; null = off."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("low", "high"):
            start, stop = getattr(self, f"c_{name}_start"), getattr(self, f"c_{name}_max")
            if start > stop:
                raise ValueError(f"c_{name}_start={start} must not exceed c_{name}_max={stop}")
        return self


def balanced_bounds(ratio: Tensor, advantage: Tensor, weight: Tensor, c: BapoConfig) -> Bounds:
    """Move the bounds until the balance reaches the target, or to the end.

    Inputs [N], valid tokens only.     With P = sum_{A>0} w min(r, high) A and Q = sum_{A<0} w
    max(r, low) |A|, the balance is P / (P + Q) (Eq. 8) or P / Q. Raising `high` raises it; raising
    `low` can only lower it, so a search that gets there goes to the end.
    """
    lows = bound_values(c.c_low_start, c.c_low_max, c.low_step, partial=c.partial_step).to(
        ratio.device
    )
    highs = bound_values(c.c_high_start, c.c_high_max, c.high_step, partial=c.partial_step).to(
        ratio.device
    )
    r, mass = ratio.double(), weight.double() * advantage.double()
    gain, loss = mass.clamp(min=0), (-mass).clamp(min=0)
    positive = capped_sums(r, gain, highs)
    # max(r, low) = r + low - min(r, low)
    negative = (loss * r).sum() + loss.sum() * lows - capped_sums(r, loss, lows)
    turn = (len(highs) if c.order == "high_first" else len(lows)) - 1
    place = torch.arange(len(lows) + len(highs) - 1, device=ratio.device)
    first, second = place.clamp(max=turn), (place - turn).clamp(min=0)
    i_high, i_low = (first, second) if c.order == "high_first" else (second, first)
    p, q = positive[i_high], negative[i_low]
    balance = p / (p + q).clamp(min=TINY) if c.metric == "fraction" else p / (q + POS_NEG_EPS)
    reached = (balance >= c.target).nonzero()
    end = int(reached[0]) if len(reached) else len(balance) - 1
    return Bounds(
        low=lows[i_low[end]].item(),
        high=highs[i_high[end]].item(),
        balance=balance[end].item(),
        steps=end,
    )


@register("loss", "bapo")
class BAPO(PolicyLoss[BapoConfig]):
    """L = -min(r A, clip(r, c_low, c_high) A), r = pi / behavior, with searched bounds.

    The bounds start anew each minibatch (arXiv:2510.18927, Eq. 8 and Algorithm 1) and see the whole
    of it. Steps are counted as integers, so that decimal steps end where the paper's do.

    Public code: the authors' (WooooDyy/BAPO) differs from the paper in the balance, its weights and
    the order of the search; `bapo_authors_repo` is that variant. No other trainer ships BAPO.
    """

    Config = BapoConfig
    scope = "minibatch"
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        ratio = self.ratio(policy.logp, batch.behavior_logp, mask)
        valid = ratio.detach()[mask]
        weight = batch.behavior_logp[mask].exp() if c.prob_weight else torch.ones_like(valid)
        bounds = balanced_bounds(valid, batch.advantage[mask], weight, c)
        value, clipped = clipped_surrogate(
            ratio, batch.advantage, bounds.low, bounds.high, dual_clip=c.dual_clip
        )
        figures = {
            "c_low": bounds.low,
            "c_high": bounds.high,
            "balance": bounds.balance,
            "search_steps": bounds.steps,
        }
        return policy_output(
            value,
            mask,
            ratio=ratio,
            clip_fraction=clipped,
            **{name: rows_of(figure, ratio) for name, figure in figures.items()},
        )


bapo_authors_repo = variant(
    "bapo_authors_repo",
    of=BAPO,
    order="low_first",
    metric="pos_neg",
    prob_weight=False,
    partial_step=True,
    target=1.0,
    c_low_max=0.8,
    c_high_max=2.0,
    low_step=0.05,
    dual_clip=3.0,
    doc="BAPO as its authors' code has it, which differs from the paper's Algorithm 1.",
)
