"""Second-moment trust policy optimization, M2PO (arXiv:2510.01161).

Stale data is safe to learn from while the second moment of its log-ratios is small: the few tokens
with the largest ones are left out, and the rest needs no clip. Two public implementations differ
from the paper and from each other, so each is a part of its own.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ppo import clipped_surrogate
from algorithms.ratio import policy_output, rows_of
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import masked_log_ratio
from rlkit.registry import register

UNBOUNDED = 1e5
"""The upper ratio bound of the authors' code if the budget holds already."""
Threshold = Annotated[float, Field(ge=0)]


def smallest(squares: Tensor, threshold: float, *, strict: bool) -> Tensor:
    """Which of the squares [N] stay, as 0/1 bool: the most whose mean is within the threshold.

    The largest leave first, equal ones together. `strict`: the mean must be below the threshold,
    and the smallest square stays whatever it is (AReaL).
    """
    ascending = squares.double().sort().values
    mean = ascending.cumsum(0) / torch.arange(1, len(squares) + 1, device=squares.device)
    inside = (mean < threshold if strict else mean <= threshold).nonzero()
    count = max(int(inside[-1]) + 1 if len(inside) else 0, int(strict))
    if count >= len(squares):
        return torch.ones_like(squares, dtype=torch.bool)
    return squares.double() < ascending[count]


def clip_radius(squares: Tensor, budget: float) -> float | None:
    """The largest |log r| whose use as a cap brings the mean of the squares [N] to the budget.

    Of the squares' own roots; 0 if not even the smallest is one, None if the mean is within the
    budget without a cap.
    """
    ascending = squares.double().sort().values
    n = len(ascending)
    if n == 0 or ascending.mean() <= budget:
        return None
    rest = torch.arange(n - 1, -1, -1, device=squares.device)
    reached = (ascending.cumsum(0) + rest * ascending >= budget * n).nonzero()
    first = int(reached[0]) if len(reached) else n - 1
    return math.sqrt(ascending[first - 1].item()) if first > 0 else 0.0


def trust_region(policy: PolicyTerms, batch: LossBatch) -> tuple[Tensor, Tensor]:
    """log r of pi / behavior [B, T], and the tokens whose push takes the ratio further from 1.

    Those are (A > 0 and r > 1) or (A < 0 and r < 1).
    """
    log_ratio = masked_log_ratio(policy.logp.detach(), batch.behavior_logp, batch.mask)
    return log_ratio, batch.mask & (batch.advantage * log_ratio > 0)


class M2poConfig(LossConfig):
    """Settings of M2PO. The defaults are the paper's (Algorithm 1)."""

    m2_threshold: Threshold = 0.04
    """Bound of the mean squared log-ratio."""


@register("loss", "m2po")
class M2PO(PolicyLoss[M2poConfig]):
    """L = -M r A, r = pi / behavior (Eqs. 4-5), averaged over all tokens, dropped ones too.

    Of the trust-region tokens, (A > 0 and r > 1) or (A < 0 and r < 1), M = 0 for those with the
    largest (log r)^2, as many as it takes until the mean of the others is at most `m2_threshold`.
    The statistics are those of the whole minibatch.

    Public code: Trinity-RFT follows the paper. The authors' code is `m2po_authors_repo`, AReaL's
    `m2po_areal`.
    """

    sources = ("2510.01161",)
    scope = "minibatch"
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        log_ratio, trusted = trust_region(policy, batch)
        stay = smallest(log_ratio[trusted].square(), self.config.m2_threshold, strict=False)
        dropped = torch.zeros_like(trusted).masked_scatter(trusted, ~stay)
        ratio = self.ratio(policy.logp, batch.behavior_logp, batch.mask)
        value = torch.where(dropped, 0.0, -ratio * batch.advantage)
        return policy_output(value, batch.mask, ratio=ratio, masked_tokens=dropped.to(ratio.dtype))


class M2poAuthorsRepoConfig(LossConfig):
    """Settings of the authors' code: a clip from the budget, no mask."""

    m2_threshold: Threshold = 0.04
    """Budget: what the mean squared log-ratio may be."""
    clip_low_min: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """The lower clip is at least this far from 1."""
    clip_high_min: Annotated[float, Field(gt=0)] = 0.5
    """The upper clip is at least this far from 1."""


@register("loss", "m2po_authors_repo")
class M2POAuthorsRepo(PolicyLoss[M2poAuthorsRepoConfig]):
    """M2PO as its authors' code has it: the budget sets a clip's bounds, and no token is dropped.

        L = -min(r A, clip(r, e^-tau, e^tau) A),  r = pi / behavior

    tau is the largest |log r| that as a cap of the trust-region tokens meets the budget; the bounds
    are never tighter than `clip_low_min` and `clip_high_min` allow.

    Public code: Infini-AI-Lab/M2PO.
    """

    sources = ("2510.01161",)
    scope = "minibatch"
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c = self.config
        log_ratio, trusted = trust_region(policy, batch)
        tau = clip_radius(log_ratio[trusted].square(), c.m2_threshold)
        low = min(-math.inf if tau is None else -tau, math.log1p(-c.clip_low_min))
        high = max(math.log(UNBOUNDED) if tau is None else tau, math.log1p(c.clip_high_min))
        # In logarithms: tau is one token's own, which a bound rounded by exp might cut.
        free = masked_log_ratio(policy.logp, batch.behavior_logp, batch.mask, c.log_ratio_clamp)
        ratio = free.exp()
        value = -torch.min(ratio * batch.advantage, free.clamp(low, high).exp() * batch.advantage)
        out = ((batch.advantage > 0) & (free > high)) | ((batch.advantage < 0) & (free < low))
        return policy_output(
            value,
            batch.mask,
            ratio=ratio,
            clip_fraction=out.to(ratio.dtype),
            clip_low=rows_of(-math.expm1(low), ratio),
            clip_high=rows_of(math.expm1(high), ratio),
        )


class M2poArealConfig(LossConfig):
    """Settings of AReaL's code: a mask by (log behavior / prox)^2, and PPO's clip."""

    m2_threshold: Threshold = 0.04
    """The mean squared log-ratio must be below this."""
    clip_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Lower clip of pi / prox."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """Upper clip of pi / prox."""
    behavior_weight: bool = False
    """Multiply by the detached prox / behavior (AReaL's decoupled loss)."""


@register("loss", "m2po_areal")
class M2POAreal(PolicyLoss[M2poArealConfig]):
    """M2PO as AReaL has it: stale tokens leave the batch, the rest has PPO's clip on pi / prox.

    The tokens with the largest (log behavior / prox)^2 leave the loss and its mean, as many as it
    takes until the mean square of the others is below `m2_threshold`.

    Public code: AReaL's `_apply_m2po_masking` before its PPO loss.
    """

    sources = ("2510.01161",)
    scope = "minibatch"
    needs = frozenset({"behavior", "prox"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        moved = masked_log_ratio(batch.behavior_logp, batch.prox_logp, mask)
        stay = smallest(moved[mask].square(), c.m2_threshold, strict=True)
        kept = torch.zeros_like(mask).masked_scatter(mask, stay)
        ratio = self.ratio(policy.logp, batch.prox_logp, mask)
        value, clipped = clipped_surrogate(ratio, batch.advantage, 1 - c.clip_low, 1 + c.clip_high)
        if c.behavior_weight:
            value = value * self.ratio(batch.prox_logp, batch.behavior_logp, mask)
        dropped = (mask & ~kept).to(ratio.dtype)
        return policy_output(value, kept, ratio=ratio, clip_fraction=clipped, masked_tokens=dropped)
