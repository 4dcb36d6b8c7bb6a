"""Supervised finetuning: imitate the responses of a batch, whatever their reward.

With token weights it is the supervised part of CHORD (arXiv:2508.11408): unlikely tokens, which
would break what the policy has learned, and likely ones, which teach it nothing, weigh little.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import register

Weighting = Literal["none", "phi", "probability"]


def imitation(logp: Tensor, mask: Tensor, weighting: Weighting) -> Tensor:
    """-w log p [B, T] with the detached weight w = 1 (none), p (1 - p) (phi) or p (probability)."""
    known = torch.where(mask, logp, 0.0)
    if weighting == "none":
        return -known
    p = known.detach().clamp(max=0).exp()
    return -known * (p if weighting == "probability" else p * (1 - p))


class SftConfig(LossConfig):
    """Settings of supervised finetuning."""

    weighting: Weighting = "none"
    """The detached weight of a token of probability p: none = 1, phi = p (1 - p), probability =
    p."""
    only_expert: bool = False
    """Whether to learn from demonstrations alone; false imitates the policy's own responses too,
    right or wrong, so filter them (rejection sampling)."""


@register("loss", "sft")
class SFT(PolicyLoss[SftConfig]):
    """L = -log pi on every valid token. Advantages and rewards are not read.

    Public code: Trinity-RFT's `sft` is this, its `sft_phi` and `sft_is` are the weightings phi and
    probability; its optional cut-off of the probability is not offered.
    """

    sources = ("2508.11408",)
    accepts_expert = True
    sees_penalty = False

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        chosen = batch.mask & batch.expert[:, None] if self.config.only_expert else batch.mask
        return policy_output(imitation(policy.logp, chosen, self.config.weighting), chosen)
