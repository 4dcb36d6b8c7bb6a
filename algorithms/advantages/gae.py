"""Generalized advantage estimation with a critic, GAE (arXiv:1506.02438)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypeVar

from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.interfaces import AdvantageEstimator, PartConfig
from rlkit.ops import clipped_value_loss, whiten
from rlkit.registry import register

Share = Annotated[float, Field(ge=0, le=1)]


def gae(token_reward: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """A_t = delta_t + gamma lam A_{t+1}, with delta_t = R_t + gamma V_{t+1} - V_t: [B, T].

    t + 1 is the next valid token: masked ones are skipped. The value after the last one is 0.
    """
    advantage = torch.zeros_like(values)
    next_value, running = values.new_zeros(len(values)), values.new_zeros(len(values))
    for t in range(values.shape[1] - 1, -1, -1):
        valid = mask[:, t]
        delta = token_reward[:, t] + gamma * next_value - values[:, t]
        running = torch.where(valid, delta + gamma * lam * running, running)
        next_value = torch.where(valid, values[:, t], next_value)
        advantage[:, t] = torch.where(valid, running, 0.0)
    return advantage


class GAEConfig(PartConfig):
    """Settings of the estimator and of the critic's loss."""

    gamma: Share = 1.0
    """Discount per token."""
    lam: Share = 1.0
    """Weight of longer returns: 1 = the whole return less the value, 0 = one-step differences."""
    whiten: bool = True
    """Whether advantages are brought to mean 0 and variance 1 over the batch's valid tokens."""
    whiten_eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the variance."""
    value_clip: Annotated[float, Field(gt=0)] | None = 0.5
    """How far the critic may move from its value at the start of the step before its loss stops
    following it; null = no clip."""
    critic_age: bool = False
    """Whether the critic sees the age a of the weights that sampled a response, V(s) + log(1 + a)
    u(s); see `gae_age`."""


GC = TypeVar("GC", bound=GAEConfig, default=GAEConfig)


@register("advantage", "gae")
class GAE(AdvantageEstimator[GC]):
    """PPO's advantages. The returns are A + V before whitening.

    Replayed responses keep their rewards and get values of the current critic. The ReMix sources
    (arXiv:2507.06892) do not say how it estimates them; no off-policy correction is added here, but
    in `gae_vtrace`.

    Public code: agrees with verl's gae, masked tokens skipped and returns taken before whitening.
    """

    Config = GAEConfig
    sources: ClassVar[tuple[str, ...]] = ("1506.02438",)
    needs_critic = True

    @property
    def critic_sees_age(self) -> bool:
        """Whether the critic is told how stale the data is."""
        return self.config.critic_age

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages and returns [B, T]."""
        c = self.config
        raw = gae(b.token_reward, b.values, b.mask, c.gamma, c.lam)
        returns = torch.where(b.mask, raw + b.values, 0.0)
        return AdvantageOutput(
            advantage=whiten(raw, b.mask, c.whiten_eps) if c.whiten else raw, returns=returns
        )

    def value_loss(
        self, values: Tensor, prox_values: Tensor, returns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Per-token critic loss [B, T] and a 0/1 clip indicator [B, T]."""
        return clipped_value_loss(values, prox_values, returns, self.config.value_clip)


class GAEAgeConfig(GAEConfig):
    """Settings of GAE with a critic that sees how stale the data is."""

    critic_age: bool = True


@register("advantage", "gae_age")
class GAEAge(GAE[GAEAgeConfig]):
    """GAE whose critic sees how stale the data is: V(s, a) = V(s) + log(1 + a) u(s).

    A replayed response was finished by an older policy, so the value of its states is another one.
    The idea is PeVFA's (arXiv:2010.09536), a value function of the state and of the policy; the age
    a of the weights stands for the policy. Fresh data has a = 0, and u starts at 0. Status: our
    choice, named after the idea; the paper embeds the policy itself.
    """

    sources = ("2010.09536", "1506.02438")
