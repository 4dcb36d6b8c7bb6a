"""Fresh and replayed responses as two objectives, each averaged over its own tokens.

    L = L_fresh + replay_weight L_replay

RePO (arXiv:2506.09340) and SPEAR (arXiv:2509.22601) add the loss of replayed responses to that of
the fresh ones, so that its weight does not depend on how many of each a batch holds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from algorithms.ppo import PPOConfig
from algorithms.ratio import RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.ops import Aggregation
from rlkit.registry import register, variant


class RepoConfig(PPOConfig):
    """Settings of RePO."""

    aggregation: Aggregation = "seq-mean-token-mean"
    ratio_to: Literal["prox", "behavior"] = "behavior"
    replay_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the replayed responses' objective: RePO's lambda_off, SPEAR's gamma, which grows
    from 0 to 1 along a cosine."""


@register("loss", "repo")
class RePO(RatioLoss[RepoConfig]):
    """L = L_PPO(responses of this step) + replay_weight L_PPO(replayed ones), r = pi / behavior.

    Both are PPO's clipped surrogate with the same clip. What comes from a buffer's store is
    replayed, new responses of lagging weights are not. The source is arXiv:2506.09340.

    Public code: SihengLi99/RePO has lambda_off = 1, clip 0.2 and the aggregations of TRL's grpo,
    bnpo and dr_grpo.
    """

    sources = ("2506.09340",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Two terms, each aggregated over its own rows."""
        c = self.config
        ratio = self.ratio(policy.logp, self.other(batch), batch.mask)
        value, clipped = c.surrogate(ratio, batch.advantage)
        return two_objectives(value, batch, c.replay_weight, ratio=ratio, clip_fraction=clipped)


def two_objectives(value: Tensor, batch: LossBatch, weight: float, **metrics: Tensor) -> LossOutput:
    """The terms of new and of replayed responses, [B, T], the latter with a weight; see module."""
    new, old = ~batch.replayed, batch.replayed
    return LossOutput(
        terms=[
            Term(name="policy", value=value, mask=batch.mask & new[:, None], rows=new),
            Term(
                name="policy_replay",
                value=value,
                mask=batch.mask & old[:, None],
                rows=old,
                weight=weight,
            ),
        ],
        metrics=policy_output(value, batch.mask, **metrics).metrics,
    )


spear = variant(
    "spear",
    of=RePO,
    aggregation="seq-mean-token-sum-norm",
    clip_high=0.28,
    dual_clip=10.0,
    sources=("2509.22601",),
    doc="""J = J_GRPO(responses of this step) + gamma J_SIL(replayed successes).

    gamma is replay_weight. Self-imitation with PPO's clip on the ratio to the policy that sampled
    (arXiv:2509.22601); the surrogate is that of its base recipe, which bounds both sides widely.
    Its gamma(t) is the variant spear_curriculum, its advantages advantage=spear; the
    loss with the covariance clip of its scripts, and without the dual clip, is spear_cov.

    Public code: TencentYoutuResearch/SPEAR takes the two objectives in separate optimizer steps,
    without a KL penalty on the replayed ones.
    """,
)
