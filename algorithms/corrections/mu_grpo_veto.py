"""mu-GRPO's veto: what follows a token the policy has abandoned (arXiv:2605.17570)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction, PartConfig
from rlkit.ops import masked_log_ratio
from rlkit.registry import register


class MuGRPOVetoConfig(PartConfig):
    """Settings of the veto."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """The ratio below which a token ends what is learned of a negative response. Read off an
    illustration of the paper; unconfirmed."""


def after_the_first(hit: Tensor) -> Tensor:
    """Whether an earlier position of the row is true, [B, T] bool."""
    return (hit.cumsum(-1) - hit.to(torch.int64)) > 0


@register("correction", "mu_grpo_veto")
class MuGRPOVeto(Correction[MuGRPOVetoConfig]):
    """Where A < 0, weight 0 on the tokens after the first one with pi / behavior < threshold.

    The policy would not come to where those tokens were written, so pushing them down teaches it
    nothing. The token itself stays, and so do all positive responses; the denominators keep what is
    left out. Demonstrations stay.

    Status: adapted. The paper's code is not public yet; its clip of the ratio to [0, 5] is
    `loss=ppo` with other bounds, its stages on frozen rollouts are `train.steps` of a stage with
    buffer=stored.
    """

    sources = ("2605.17570",)
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch as it is, and the 0/1 weight [B, T]."""
        known = batch.mask & ~batch.expert[:, None]
        log_ratio = masked_log_ratio(policy.logp, batch.behavior_logp, known)
        gone = after_the_first(log_ratio < math.log(self.config.threshold))
        weight = torch.where(gone & (batch.advantage < 0), 0.0, torch.ones_like(log_ratio))
        return Corrected(batch=batch, weight=weight)
