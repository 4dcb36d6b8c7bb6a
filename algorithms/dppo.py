"""DPPO: a trust region on probabilities, not on their ratio."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ratio import policy_output
from algorithms.reinforce import weighted_likelihood
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import masked_log_ratio
from rlkit.registry import register, variant

REMAINDER = 1e-8
"""Least probability left to the other tokens, so that their logarithm exists."""
Divergence = Literal["tv", "kl", "ipo"]
Bound = Annotated[float, Field(gt=0)]


class DppoConfig(LossConfig):
    """Settings of the trust region."""

    divergence: Divergence = "tv"
    """The probability's difference ("tv") or the binary KL ("kl"), each only if the update
    would take it further; "ipo": the absolute difference, whatever the sign of the advantage."""
    form: Literal["detached", "ratio"] = "ratio"
    """"ratio" differentiates r (the paper); "detached" takes min(r, ratio_cap) as a weight of the
    log-likelihood (verl), the same gradient below the cap."""
    delta_low: Bound = 0.15
    """Bound where the advantage is not positive. The default is that of verl's example; prime-rl
    and SkyRL use 0.2. Not read in the paper."""
    delta_high: Bound = 0.15
    """Bound where the advantage is positive."""
    ratio_cap: Bound = 20.0
    """Upper bound of the weight in the form "detached"."""
    log_ratio_sq_coef: Annotated[float, Field(ge=0)] = 0.0
    """Coefficient of (log r)^2, added on every valid token, kept or not (prime-rl: 1e-3)."""


def log_rest(log_prob: Tensor) -> Tensor:
    """log(1 - p) of log p."""
    return (-torch.expm1(log_prob)).log()


def inside(
    logp: Tensor,
    other: Tensor,
    advantage: Tensor,
    *,
    divergence: Divergence,
    delta_low: float,
    delta_high: float,
) -> Tensor:
    """Which tokens keep their gradient, [B, T] bool; in float64, as bounds are on differences."""
    log_pi, log_mu = (x.detach().double().clamp(max=-REMAINDER) for x in (logp, other))
    moved = log_pi.exp() - log_mu.exp()
    up = advantage > 0
    bound = torch.where(up, moved.new_tensor(delta_high), delta_low)
    if divergence == "ipo":
        return moved.abs() <= bound
    if divergence == "tv":
        return torch.where(up, moved, -moved) <= bound
    mu = log_mu.exp()
    kl = mu * (log_mu - log_pi) + (1 - mu) * (log_rest(log_mu) - log_rest(log_pi))
    return (kl <= bound) | torch.where(up, moved <= 0, moved >= 0)


@register("loss", "dppo")
class DPPO(PolicyLoss[DppoConfig]):
    """The plain surrogate on tokens whose probability has not moved too far from its sampler's.

        L = -r A M + log_ratio_sq_coef (log r)^2,  r = pi / behavior
        M = 1[pi - mu <= delta_high] where A > 0, 1[pi - mu >= -delta_low] elsewhere   (tv)

    A ratio of 100 is nothing on a rare token and a drop from 0.99 to 0.8 is much; PPO's clip treats
    them the other way round. Source: arXiv:2602.04879. Dropped tokens still count in the mean.

    Public code: verl's `dppo_tv` and `dppo_kl` are the form "detached"; the ratio cap in effect
    there is its clip_ratio_c. prime-rl's default loss is the form "ratio" with deltas 0.2 and the
    quadratic term at 1e-3, per token of the whole batch. All anchor at the sampling policy.
    """

    sources = ("2602.04879",)
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        log_ratio = masked_log_ratio(policy.logp, batch.behavior_logp, mask, c.log_ratio_clamp)
        ratio = log_ratio.exp()
        kept = mask & inside(
            policy.logp,
            batch.behavior_logp,
            batch.advantage,
            divergence=c.divergence,
            delta_low=c.delta_low,
            delta_high=c.delta_high,
        )
        if c.form == "ratio":
            value = torch.where(kept, -ratio * batch.advantage, 0.0)
        else:
            weight = ratio.clamp(max=c.ratio_cap) * batch.advantage
            value = weighted_likelihood(policy.logp, weight, kept)
        return policy_output(
            value + c.log_ratio_sq_coef * log_ratio.square(),
            mask,
            ratio=ratio,
            kept=kept.to(ratio.dtype),
            clip_fraction=(~kept).to(ratio.dtype),
        )


dppo_kl = variant(
    "dppo_kl",
    of=DPPO,
    divergence="kl",
    delta_low=0.05,
    delta_high=0.05,
    doc="""DPPO with the binary KL in place of the difference.

        M = 1[KL(mu || pi) <= delta, or the move was against the update]
        KL = mu log(mu / pi) + (1 - mu) log((1 - mu) / (1 - pi))

    Source: arXiv:2602.04879; the bounds are those of verl's example.

    Public code: verl's `dppo_kl`, which adds 1e-8 inside the logarithm; here the probability left
    to other tokens is at least that.
    """,
)

dppo_ipo = variant(
    "dppo_ipo",
    of=DPPO,
    divergence="ipo",
    delta_low=0.1,
    delta_high=0.1,
    log_ratio_sq_coef=1e-3,
    sources=(),
    doc="""A symmetric trust region, with a quadratic pull back on every token.

        L = -r A 1[|pi - mu| <= delta] + 1e-3 (log r)^2

    Public code: prime-rl's `ipo_loss_fn`, which names no paper; it is not the preference loss of
    that name. Both bounds are its one threshold.
    """,
)
