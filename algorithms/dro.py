"""Direct reward optimization, DRO (arXiv:2405.19107), as a token loss.

A quadratic penalty on the log-ratio takes the place of the clip, so the loss can be used on any
data:

    L = -(A log pi - beta/2 (log r)^2),  r = pi / prox

Public code: verl's `dro`, which has no default for beta and no clamp (log_ratio_clamp=null). ROLL's
per-token kimi15 is the same with beta = tau. The paper's own equations, a regression with a learned
value, were not read: that this is their policy part is unconfirmed.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.ops import masked_log_ratio
from rlkit.registry import register


class DroConfig(RatioConfig):
    """Settings of DRO."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the penalty. Public code demands a value without giving one: unconfirmed."""


@register("loss", "dro")
class DRO(RatioLoss[DroConfig]):
    """L = -(A log pi - beta/2 (log r)^2); the penalty is constant beyond `log_ratio_clamp`."""

    sources = ("2405.19107",)
    off_policy = True

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask = self.config, batch.mask
        distance = masked_log_ratio(policy.logp, self.other(batch), mask, c.log_ratio_clamp)
        logp = torch.where(mask, policy.logp, 0.0)
        value = 0.5 * c.beta * distance.square() - batch.advantage * logp
        return policy_output(value, mask, ratio=distance.exp())
