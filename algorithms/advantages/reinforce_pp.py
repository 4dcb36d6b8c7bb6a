"""REINFORCE++: advantages whitened over the tokens of the whole batch (arXiv:2501.03262)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from algorithms.advantages.gae import gae
from algorithms.advantages.outcome import SingletonConfig, lonely
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.ops import group_centred, over_tokens, whiten
from rlkit.registry import register

WhitenEps = Annotated[float, Field(gt=0)]


def return_to_go(token_reward: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """R_t + gamma R_{t+1} + ... over the valid tokens, masked ones skipped: [B, T]."""
    return gae(token_reward, torch.zeros_like(token_reward), mask, gamma, 1.0)


class ReinforcePPConfig(PartConfig):
    """Settings of the return and of the whitening."""

    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Discount per token."""
    whiten_eps: WhitenEps = 1e-8
    """Added to the variance, which divides by the number of tokens - 1."""


@register("advantage", "reinforce_pp")
class ReinforcePP(AdvantageEstimator[ReinforcePPConfig]):
    """A_t = whiten(G_t), G_t = sum_{j>=t} gamma^{j-t} R_j (arXiv:2501.03262, Eqs. 4-5).

    No critic and no group: the batch's own mean is the baseline, over its valid tokens. The paper's
    KL is in the token rewards (anchor.placement=reward).

    Public code: agrees with verl's reinforce_plus_plus, including masked tokens inside a response;
    slime, NeMo-RL and Trinity-RFT have the same form. The paper's eps is beside the standard
    deviation.
    """

    sources = ("2501.03262",)

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Whitened returns and the returns, [B, T]."""
        returns = return_to_go(b.token_reward, b.mask, self.config.gamma)
        return AdvantageOutput(
            advantage=whiten(returns, b.mask, self.config.whiten_eps), returns=returns
        )


class ReinforcePPBaselineConfig(SingletonConfig):
    """Settings of the baseline and of the whitening."""

    whiten_eps: WhitenEps = 1e-8
    """Added to the variance, which divides by the number of tokens - 1."""


@register("advantage", "reinforce_pp_baseline")
class ReinforcePPBaseline(AdvantageEstimator[ReinforcePPBaselineConfig]):
    """A = whiten(R - mean(R_group)): the group's mean, the batch's spread.

    REINFORCE++ with baseline (arXiv:2501.03262, Eqs. 6-8). A prompt with nearly equal rewards is
    not blown up, as a division by its own spread would.

    Public code: agrees with verl's reinforce_plus_plus_baseline.
    """

    sources = ("2501.03262",)
    min_group = 2

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Whitened advantages [B, T]; the returns are the rewards."""
        c = self.config
        centred = lonely(group_centred(b.reward, b.group), b.reward, b.group, c.singleton)
        return AdvantageOutput(
            advantage=whiten(over_tokens(centred, b.mask), b.mask, c.whiten_eps),
            returns=over_tokens(b.reward, b.mask),
        )
