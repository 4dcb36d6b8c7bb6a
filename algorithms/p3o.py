"""Policy-on policy-off policy optimization, P3O (arXiv:1905.01756).

How far the data is off-policy is read from the effective sample size of its ratios; that one number
caps the ratio and sets the strength of the pull back, so that neither is tuned.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from algorithms.ratio import policy_output, rows_of
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.ops import Clamps, effective_sample_size, kl_value, masked_log_ratio
from rlkit.registry import register


class P3oConfig(LossConfig):
    """Settings of P3O."""

    cap: Annotated[float, Field(gt=0)] | Literal["ess"] = "ess"
    """Upper bound of the ratio: the effective sample size (the paper's) or a number (the authors'
    code: 1)."""
    kl_coef: Annotated[float, Field(ge=0)] | Literal["one_minus_ess"] = "one_minus_ess"
    """Coefficient of the pull to the policy that sampled: 1 - ESS (the paper's) or a number."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of KL(pi || behavior). The paper's direction and estimator are unconfirmed."""


@register("loss", "p3o")
class P3O(PolicyLoss[P3oConfig]):
    """L = -sg[min(r, ESS)] A log pi + (1 - ESS) KL(pi || behavior), r = pi / behavior.

    ESS = (sum r)^2 / (n sum r^2) over the valid tokens of the minibatch, detached: 1 on-policy.

    Public code: rasoolfa/P3O always has the coefficient 1 - ESS, the cap ESS only by an option that
    is off (else 1), and a KL(pi || behavior) over all actions, although its comment names the
    reverse. It alternates on-policy and replay steps; here both kinds of data share a step.
    """

    sources = ("1905.01756",)
    scope = "minibatch"
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask, logp = self.config, batch.mask, policy.logp
        log_ratio = masked_log_ratio(logp.detach(), batch.behavior_logp, mask, c.log_ratio_clamp)
        ratio = log_ratio.exp()
        ess = effective_sample_size(log_ratio, mask).to(ratio)
        cap = ess if c.cap == "ess" else ratio.new_tensor(c.cap)
        kl_coef = 1 - ess if c.kl_coef == "one_minus_ess" else ratio.new_tensor(c.kl_coef)
        weight = ratio.clamp(max=cap)
        clamps = Clamps(log_ratio=c.log_ratio_clamp)
        kl = kl_value(logp, batch.behavior_logp, mask, c.kl_estimator, clamps)
        value = -weight * batch.advantage * torch.where(mask, logp, 0.0) + kl_coef * kl
        figures = {"ess": ess, "kl_coef": kl_coef, "cap": cap}
        return policy_output(
            value,
            mask,
            ratio=ratio,
            weight=weight,
            clip_fraction=(ratio > cap).to(ratio.dtype),
            kl=kl,
            **{name: rows_of(figure, ratio) for name, figure in figures.items()},
        )
