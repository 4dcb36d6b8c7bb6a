"""Learning from responses better than the policy's own, with shaped weights.

LUFFY (arXiv:2504.14945) lets an expert's demonstrations join the group of the policy's own
responses. Their unknown probability is taken as 1, and their weight is shaped so that tokens the
policy finds unlikely still teach it something. ExGRPO (arXiv:2510.02245) shapes the ratio of the
policy's own earlier successes in the same way.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.ppo import PPOConfig, clipped_surrogate
from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.ops import masked_log_ratio
from rlkit.registry import register


def shaped(logp: Tensor, gamma: float) -> Tensor:
    """p / (p + gamma) with p = exp(logp), without overflow; steepest in log p at gamma."""
    return torch.sigmoid(logp - torch.as_tensor(gamma, dtype=logp.dtype).log())


class LuffyConfig(RatioConfig):
    """Settings of LUFFY."""

    clip_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Lower clip of the policy's own tokens; also the upper one, as 1 + clip_low."""
    clip_upper_bound: Annotated[float, Field(gt=0)] = 1.0
    """The upper clip is at least this ratio."""
    on_policy_clip: bool = True
    """Whether the policy's own tokens are clipped at all (the released script: no)."""
    shaping_gamma: Annotated[float, Field(gt=0)] | None = 0.1
    """gamma of an expert token's weight p / (p + gamma); null = p itself, without shaping."""


@register("loss", "luffy")
class LUFFY(RatioLoss[LuffyConfig]):
    """Expert tokens: L = -A p / (p + gamma), p = pi. The policy's own: PPO's clipped surrogate.

    Expert tokens are never clipped. All tokens are averaged together.

    Public code: the authors' (ElliottYan/LUFFY) has this; its released script removes the clip
    (`on_policy_clip=false`), divides the sum of all tokens by a constant length
    (`aggregation=token-sum-norm`) and leaves the standard deviation out of the advantage. Its
    upper clip is max(clip_upper_bound, 1 + clip_low).
    """

    sources = ("2504.14945",)
    accepts_expert = True

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, advantage = self.config, batch.advantage
        expert = batch.mask & batch.expert[:, None]
        ratio = self.ratio(policy.logp, self.other(batch), batch.mask & ~expert)
        if c.on_policy_clip:
            high = max(c.clip_upper_bound, 1 + c.clip_low)
            own, clipped = clipped_surrogate(ratio, advantage, 1 - c.clip_low, high)
        else:
            own, clipped = -ratio * advantage, torch.zeros_like(ratio)
        logp = torch.where(expert, policy.logp, 0.0)
        weight = (
            self.ratio(logp, torch.zeros_like(logp), expert)
            if c.shaping_gamma is None
            else shaped(logp, c.shaping_gamma)
        )
        value = torch.where(expert, -advantage * weight, own)
        return policy_output(value, batch.mask, ratio=ratio, clip_fraction=clipped)


class OwnClipConfig(PPOConfig):
    """Settings of a loss that may leave the policy's own new tokens unclipped."""

    on_policy_clip: bool = True
    """Whether the policy's own new tokens are clipped."""

    def own(self, ratio: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
        """The surrogate, or -r A without a clip, and where the clip cut its gradient, [B, T]."""
        if self.on_policy_clip:
            return self.surrogate(ratio, advantage)
        return -ratio * advantage, torch.zeros_like(ratio)


class ExgrpoConfig(OwnClipConfig):
    """Settings of ExGRPO."""

    shaping_beta: Annotated[float, Field(gt=0)] = 0.1
    """beta of a replayed token's weight w / (w + beta)."""
    on_policy_clip: bool = True
    """Whether tokens of new responses are clipped (the released script: no, once it replays)."""


@register("loss", "exgrpo")
class ExGRPO(RatioLoss[ExgrpoConfig]):
    """Replayed tokens: L = -A w / (w + beta), w = pi / behavior. New ones: PPO's surrogate.

    What comes from a buffer's store is replayed, new responses of lagging weights are not. In
    groups of K a batch of which a share rho holds one replayed response each has the paper's two
    objectives with their weights 1 - rho and rho, since all groups are averaged alike. The weight's
    gradient on log pi is beta w / (w + beta)^2, at most 1/4 at w = beta. The logged ratio is
    pi / behavior on all tokens.

    Public code: ElliottYan/LUFFY (ExGRPO) also drops steps whose gradient norm is above 500.
    """

    sources = ("2510.02245",)

    def __init__(self, config: ExgrpoConfig | None = None) -> None:
        super().__init__(config)
        self.needs = self.needs | {"behavior"}

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, advantage = self.config, batch.advantage
        replayed = batch.mask & batch.replayed[:, None]
        ratio = self.ratio(policy.logp, self.other(batch), batch.mask & ~replayed)
        own, clipped = c.own(ratio, advantage)
        log_ratio = masked_log_ratio(policy.logp, batch.behavior_logp, replayed)
        value = torch.where(replayed, -advantage * shaped(log_ratio, c.shaping_beta), own)
        return policy_output(value, batch.mask, clip_fraction=clipped)
