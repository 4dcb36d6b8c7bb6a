"""Clip-Cov and KL-Cov: hold back the few tokens that make the entropy collapse."""

from __future__ import annotations

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from algorithms.ppo import ClipHigh, PPOConfig
from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.ops import hash_uniform, masked_log_ratio, masked_mean
from rlkit.registry import register

Share = Annotated[float, Field(ge=0, le=1)]


def token_covariance(logp: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
    """(A - mean A)(log pi - mean log pi), -inf where masked: [B, T] float64."""
    a, p = advantage.double(), logp.detach().double()
    return torch.where(mask, (a - masked_mean(a, mask)) * (p - masked_mean(p, mask)), -torch.inf)


def drawn_order(logp: Tensor) -> Tensor:
    """A random order of all tokens, decided by their log-probs alone."""
    return hash_uniform(logp).flatten().argsort(stable=True)


def first_of(order: Tensor, candidates: Tensor, count: int) -> Tensor:
    """The `count` first of the candidates in an order of all entries, in the candidates' shape."""
    ranked = order[candidates.flatten()[order]][:count]
    chosen = torch.zeros_like(candidates).flatten()
    chosen[ranked] = True
    return chosen.view_as(candidates)


def token_count(share: float, mask: Tensor) -> int:
    """That share of the valid tokens, at least one."""
    return max(1, int(share * int(mask.sum())))


class ClipCovConfig(PPOConfig):
    """Settings of Clip-Cov. The ratio's clip is as wide as in the authors' script."""

    clip_low: Annotated[float, Field(gt=0, le=1)] = 1.0
    clip_high: ClipHigh = 1.0
    clip_cov_ratio: Share = 2e-4
    """Share of the valid tokens that lose their gradient; at least one token."""
    clip_cov_lb: float = 1.0
    """They are drawn from the tokens with a covariance above this."""
    clip_cov_ub: float = 5.0
    """And below this."""

    @model_validator(mode="after")
    def _bounds_ordered(self) -> Self:
        if self.clip_cov_lb >= self.clip_cov_ub:
            raise ValueError(
                f"clip_cov_lb={self.clip_cov_lb} must be below clip_cov_ub={self.clip_cov_ub}"
            )
        return self

    def held_back(self, logp: Tensor, advantage: Tensor, mask: Tensor, clipped: Tensor) -> Tensor:
        """Which tokens of the mask are drawn to lose their gradient, [B, T] bool.

        The ratio's clip has cut those that are `clipped`; they are not drawn.
        """
        covariance = token_covariance(logp, advantage, mask)
        eligible = (covariance > self.clip_cov_lb) & (covariance < self.clip_cov_ub)
        count = token_count(self.clip_cov_ratio, mask)
        return first_of(drawn_order(logp), eligible & (clipped == 0), count)


@register("loss", "clip_cov")
class ClipCov(RatioLoss[ClipCovConfig]):
    """PPO's surrogate without a random few of the tokens that push the entropy down most.

        cov = (A - mean A)(log pi - mean log pi)
        L = 0 on the drawn tokens with clip_cov_lb < cov < clip_cov_ub, PPO's loss elsewhere

    Tokens that the ratio's clip cuts are not drawn; drawn ones still count in the mean. The draw is
    by a hash of the log-prob, so that it repeats. Source: arXiv:2505.22617.

    Public code: verl's and SkyRL's `clip_cov`, with a fresh random draw and means over the
    micro-batch; here they are over the minibatch. The authors' script sets both clips to 1.
    """

    sources = ("2505.22617",)
    scope = "minibatch"

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        ratio = self.ratio(policy.logp, self.other(batch), mask)
        value, clipped = c.surrogate(ratio, batch.advantage)
        selected = c.held_back(policy.logp, batch.advantage, mask, clipped)
        return policy_output(
            torch.where(selected, 0.0, value),
            mask,
            ratio=ratio,
            clip_fraction=clipped,
            selected=selected.to(ratio.dtype),
        )


class KlCovConfig(RatioConfig):
    """Settings of KL-Cov."""

    kl_coef: Annotated[float, Field(ge=0)] = 0.1
    """Coefficient of |log r| on the chosen tokens (verl's default; the authors' scripts set 1)."""
    kl_cov_ratio: Share = 2e-4
    """Share of the valid tokens that are chosen; at least one token."""


@register("loss", "kl_cov")
class KLCov(RatioLoss[KlCovConfig]):
    """The plain surrogate, with a penalty on the tokens that push the entropy down most.

        L = -r A + kl_coef |log r| on the kl_cov_ratio N tokens of largest cov
        cov = (A - mean A)(log pi - mean log pi)

    Source: arXiv:2505.22617.

    Public code: verl's and SkyRL's `kl_cov`, which take the means and the largest over the
    micro-batch; here they are over the minibatch. There is no clip in either.
    """

    sources = ("2505.22617",)
    scope = "minibatch"

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        log_ratio = masked_log_ratio(policy.logp, self.other(batch), mask, c.log_ratio_clamp)
        covariance = token_covariance(policy.logp, batch.advantage, mask)
        draw = drawn_order(policy.logp)
        largest = draw[covariance.flatten()[draw].argsort(descending=True, stable=True)]
        selected = first_of(largest, mask, token_count(c.kl_cov_ratio, mask))
        penalty = torch.where(selected, c.kl_coef * log_ratio.abs(), 0.0)
        return policy_output(
            -log_ratio.exp() * batch.advantage + penalty,
            mask,
            ratio=log_ratio.exp(),
            selected=selected.to(log_ratio.dtype),
        )
