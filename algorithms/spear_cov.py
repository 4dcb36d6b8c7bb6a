"""SPEAR's two objectives with the covariance clip that its scripts add."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from algorithms.covariance import ClipCovConfig, Share
from algorithms.ppo import ClipHigh
from algorithms.ratio import RatioLoss
from algorithms.replayed import two_objectives
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.ops import Aggregation
from rlkit.registry import register


class SpearCovConfig(ClipCovConfig):
    """Settings of SPEAR with Clip-Cov."""

    aggregation: Aggregation = "seq-mean-token-sum-norm"
    ratio_to: Literal["prox", "behavior"] = "behavior"
    clip_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    clip_high: ClipHigh = 0.28
    clip_cov_ratio: Share = 0.02
    """Share of the valid tokens of either objective that lose their gradient; at least one."""
    clip_cov_ub: float = 40.0
    """And below this. 60, above 2, in the authors' script for ALFWorld."""
    replay_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the replayed responses' objective, gamma: it grows from 0 to 1 along a cosine."""


@register("loss", "spear_cov")
class SpearCov(RatioLoss[SpearCovConfig]):
    """J = J_GRPO(responses of this step) + gamma J_SIL(replayed successes), both with Clip-Cov.

        cov = (A - mean A)(log pi - mean log pi), the means over the tokens of an objective
        L = 0 on a drawn few of its tokens with clip_cov_lb < cov < clip_cov_ub, else PPO's loss

    gamma is replay_weight. Self-imitation makes a policy sure of itself; the tokens that would make
    it so fastest are held back (arXiv:2509.22601, arXiv:2505.22617). The draw is by a hash of the
    log-prob, so that it repeats. With dual_clip=10 and no covariance clip it is loss=spear;
    gamma(t) as in the paper is the variant spear_cov_curriculum.

    Public code: TencentYoutuResearch/SPEAR takes the two objectives in separate optimizer steps,
    with means over a micro-batch. Its settings for replayed tokens are written in the scripts and
    not read: one set holds for both, as here; its README's, 0.02 in [1, 40]. Nor does its loss with
    this clip read the dual clip that the scripts set, so that there is none by default.
    """

    sources = ("2509.22601", "2505.22617")
    scope = "minibatch"

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Two terms, each aggregated over its own rows."""
        c = self.config
        ratio = self.ratio(policy.logp, self.other(batch), batch.mask)
        value, clipped = c.surrogate(ratio, batch.advantage)
        old = batch.mask & batch.replayed[:, None]
        held = torch.zeros_like(batch.mask)
        for part in (batch.mask & ~old, old):
            held = held | c.held_back(policy.logp, batch.advantage, part, clipped)
        return two_objectives(
            torch.where(held, 0.0, value),
            batch,
            c.replay_weight,
            ratio=ratio,
            clip_fraction=clipped,
            selected=held.to(ratio.dtype),
        )
