"""Balanced policy optimization with adaptive clipping, BAPO (arXiv:2510.18927).

On stale data negative tokens dominate the update. For each minibatch the clip bounds are moved
until the positive tokens have their share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
Balance = Callable[[float, float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The clip bounds the search ended at, the balance they give, and how many steps it took."""

    low: float
    high: float
    balance: float
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The values a bound of the clip takes on its way from `start` to `stop`.

    Steps are counted as integers: repeated addition of 0.02 from 0.6 would miss 0.9. `partial` adds
    a last, shorter step that reaches stop.
    """

    start: float
    stop: float
    step: float
    partial: bool

    @property
    def steps(self) -> int:
        """Steps from start to stop."""
        span = (self.stop - self.start) / self.step
        return math.ceil(span - ROUNDING) if self.partial else math.floor(span + ROUNDING)

    def after(self, taken: int) -> float:
        """Its value after so many steps."""
        return min(self.start + self.step * taken, self.stop)


class Sums:
    """Weighted sums of bounded ratios [N], for any bound: after one sort each is a look-up."""

    def __init__(self, ratio: Tensor, weight: Tensor) -> None:
        ordered, order = ratio.sort()
        zero, w = weight.new_zeros(1), weight[order]
        mass = torch.cat([zero, w.cumsum(0)])  # [N + 1], of the smallest ratios
        moved = torch.cat([zero, (w * ordered).cumsum(0)])  # [N + 1]
        self.ratio, self.mass, self.moved = (x.cpu() for x in (ordered, mass, moved))

    def capped(self, high: float) -> float:
        """Sum of w min(r, high)."""
        k = int(torch.searchsorted(self.ratio, high))
        return float(self.moved[k] + high * (self.mass[-1] - self.mass[k]))

    def floored(self, low: float) -> float:
        """Sum of w max(r, low)."""
        k = int(torch.searchsorted(self.ratio, low))
        return float(low * self.mass[k] + self.moved[-1] - self.moved[k])


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
    """Lower bound of the ratio at the start of the search."""
    c_low_max: LowBound = 0.9
    """Highest lower bound."""
    c_high_start: HighBound = 1.2
    """Upper bound of the ratio at the start of the search."""
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


def balance_of(ratio: Tensor, advantage: Tensor, weight: Tensor, *, metric: Metric) -> Balance:
    """rho(c_low, c_high), the share of the positive tokens; inputs [N], valid tokens only.

        P = sum_{A>0} w min(r, c_high) A,  Q = sum_{A<0} w max(r, c_low) |A|

    rho is P / (P + Q) (Eq. 8, "fraction") or P / Q ("pos_neg").
    """
    r, mass = ratio.double(), (weight.double() * advantage.double()).abs()
    good, bad = (Sums(r[side], mass[side]) for side in (advantage > 0, advantage < 0))

    def balance(c_low: float, c_high: float) -> float:
        p, q = good.capped(c_high), bad.floored(c_low)
        return p / max(p + q, TINY) if metric == "fraction" else p / (q + POS_NEG_EPS)

    return balance


def balanced_bounds(
    balance: Balance, *, low: Bound, high: Bound, order: Order, target: float
) -> Bounds:
    """Algorithm 1: move the bounds until the positive tokens have their share, or to the end.

        c_low = a-, c_high = a+
        while rho < rho_0 and c_low + delta_2 <= b-:
            if c_high + delta_1 <= b+:  c_high += delta_1       else:  c_low += delta_2

    Raising c_high raises rho; raising c_low can only lower it, so a search that gets there goes to
    the end. "low_first" swaps the two.
    """

    def place(taken: int) -> tuple[float, float]:
        if order == "high_first":
            up = min(taken, high.steps)
            return low.after(taken - up), high.after(up)
        up = min(taken, low.steps)
        return low.after(up), high.after(taken - up)

    taken = 0
    rho = balance(*place(taken))
    while rho < target and taken < low.steps + high.steps:
        taken += 1
        rho = balance(*place(taken))
    c_low, c_high = place(taken)
    return Bounds(low=c_low, high=c_high, balance=rho, steps=taken)


@register("loss", "bapo")
class BAPO(PolicyLoss[BapoConfig]):
    """L = -min(r A, clip(r, c_low, c_high) A), r = pi / behavior, with searched bounds.

    The search starts again for each minibatch and reads all of its tokens (arXiv:2510.18927, Eq. 8
    and Algorithm 1).

    Public code: the authors' (WooooDyy/BAPO) differs from the paper in the balance, its weights and
    the order of the search; `bapo_authors_repo` is that variant. No other trainer ships BAPO.
    """

    sources = ("2510.18927",)
    scope = "minibatch"
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        ratio = self.ratio(policy.logp, batch.behavior_logp, mask)
        valid = ratio.detach()[mask]
        weight = batch.behavior_logp[mask].exp() if c.prob_weight else torch.ones_like(valid)
        bounds = balanced_bounds(
            balance_of(valid, batch.advantage[mask], weight, metric=c.metric),
            low=Bound(
                start=c.c_low_start, stop=c.c_low_max, step=c.low_step, partial=c.partial_step
            ),
            high=Bound(
                start=c.c_high_start, stop=c.c_high_max, step=c.high_step, partial=c.partial_step
            ),
            order=c.order,
            target=c.target,
        )
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
