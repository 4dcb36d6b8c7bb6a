"""REINFORCE: the likelihood of each token, weighted by its advantage."""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.ratio import policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import PolicyLoss
from rlkit.registry import register, variant


def weighted_likelihood(logp: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """-weight logp [B, T], 0 where masked; the weight is not differentiated."""
    return -torch.where(mask, weight.detach(), 0.0) * torch.where(mask, logp, 0.0)


@register("loss", "reinforce")
class REINFORCE(PolicyLoss):
    """The policy gradient on the samples as they are, without a ratio or a clip.

        L = -A log pi

    Source: Williams, Machine Learning 8 (1992); token mean. On replayed responses it is biased,
    since nothing corrects for the policy that made them.

    Public code: verl's `compute_policy_loss_gpg` is this loss; NeMo-RL gives it with
    `disable_ppo_ratio`. TOPR with every taper at 1 is the same.
    """

    sources = ()

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        value = weighted_likelihood(policy.logp, batch.advantage, batch.mask)
        return policy_output(value, batch.mask)


gpg = variant(
    "gpg",
    of=REINFORCE,
    sources=("2504.02546",),
    doc="""Group policy gradient: REINFORCE, to be composed with advantage=gpg.

        L = -A log pi,  A = alpha (R - group mean) / f_norm

    Source: arXiv:2504.02546. The method is in the advantage, which rescales by alpha for the groups
    whose rewards are all equal.

    Public code: verl's `compute_policy_loss_gpg`, token mean.
    """,
)
