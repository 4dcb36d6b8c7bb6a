"""Hybrid post-training, HPT: imitation where the policy cannot solve a prompt (arXiv:2509.04419).

    L = L_GRPO(responses of prompts it solves) + sft_weight L_SFT(demonstrations of the others)

Which prompts those are is the buffer's choice (buffer=hpt): no group has both. L_GRPO is PPO's
clipped surrogate, L_SFT = -log pi, and each is averaged over its own tokens.

Public code: agrees with the authors' (TsinghuaC3I/Unify-Post-Training, offline_loss_type="sft",
sft_loss_coef 1), which averages within a micro-batch; its script removes the clip, the mean over
tokens and the standard deviation of the advantage, and adds an entropy bonus of 0.001.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from algorithms.chord import two_terms
from algorithms.ppo import PPOConfig
from algorithms.ratio import RatioLoss
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.registry import register


class HptConfig(PPOConfig):
    """Settings of HPT."""

    sft_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the demonstrations; that of the policy's own responses is 1."""


@register("loss", "hpt")
class HPT(RatioLoss[HptConfig]):
    """L = L_GRPO(own responses) + sft_weight L_SFT(demonstrations), L_SFT = -log pi."""

    sources = ("2509.04419",)
    accepts_expert = True

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Two terms, each aggregated over its own rows."""
        return two_terms(self, policy, batch, "none", (1.0, self.config.sft_weight))
