"""VESPO: a gamma-shaped weight of the response's importance weight."""

from __future__ import annotations

import math
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from algorithms.reinforce import weighted_likelihood
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.ops import masked_log_ratio, sequence_mean
from rlkit.registry import register

LOG_MAX = 20.0
"""Upper clamp of a token's log-ratio and of log W."""
LOG_MIN = math.log(1e-8)
"""Lower clamp of log W and of a token's log(prox / behavior)."""
LAMBDA_MIN = 1e-4
Shape = Annotated[float, Field(ge=0)]


class VespoConfig(RatioConfig):
    """Settings of the weight. `log_ratio_clamp` is for the logged ratio; the weight's are fixed."""

    k_pos: Shape = 2.0
    """Power of W where the advantage is not negative."""
    lambda_pos: Shape = 3.0
    """Decay in W where the advantage is not negative; at least 1e-4 is used."""
    k_neg: Shape = 3.0
    """Power of W where the advantage is negative."""
    lambda_neg: Shape = 2.0
    """Decay in W where the advantage is negative; at least 1e-4 is used."""
    use_behavior: bool = False
    """Fold prox / behavior into W, which then starts from the policy that sampled the response."""

    @model_validator(mode="after")
    def _behavior_once(self) -> Self:
        if self.use_behavior and self.ratio_to == "behavior":
            raise ValueError("use_behavior needs ratio_to=prox; a ratio to behavior holds it")
        return self


def gamma_weight(
    log_weight: Tensor,
    advantage: Tensor,
    *,
    k_pos: float,
    lambda_pos: float,
    k_neg: float,
    lambda_neg: float,
) -> Tensor:
    """phi = W^k exp(lambda (1 - W)) [B, T] of log W [B, 1]; 1 at W = 1, 0 if it overflows."""
    positive = advantage >= 0
    k = torch.where(positive, log_weight.new_tensor(k_pos), k_neg)
    decay = torch.where(positive, log_weight.new_tensor(lambda_pos), lambda_neg)
    decay = decay.clamp(min=LAMBDA_MIN)
    log_phi = decay + k * log_weight - decay * log_weight.exp()
    return log_phi.exp().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


@register("loss", "vespo")
class VESPO(RatioLoss[VespoConfig]):
    """REINFORCE, each response weighted by a smooth function of its importance weight.

        L = -sg[phi(W)] A log pi,  phi(W) = W^k exp(lambda (1 - W)),  W = prod_t pi / prox

    k and lambda depend on the sign of A. Source: arXiv:2602.10693; token mean over the minibatch.
    Token log-ratios are clamped to +-20 and log W to [log 1e-8, 20].

    Public code: TRL's `get_gamma_weights`, clamps included; its vLLM weight is folded into W there
    (already truncated) and never multiplied, which is `use_behavior`.
    """

    sources = ("2602.10693",)

    def __init__(self, config: VespoConfig | None = None) -> None:
        super().__init__(config)
        self.needs = self.needs | {"prox", "behavior"} if self.config.use_behavior else self.needs

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask, logp = self.config, batch.mask, policy.logp.detach()
        log_weight = masked_log_ratio(logp, self.other(batch), mask, LOG_MAX)
        if c.use_behavior:
            lag = masked_log_ratio(batch.prox_logp, batch.behavior_logp, mask)
            log_weight = log_weight + lag.clamp(LOG_MIN, LOG_MAX)
        total = log_weight.sum(-1, keepdim=True).clamp(LOG_MIN, LOG_MAX)
        phi = gamma_weight(
            total,
            batch.advantage,
            k_pos=c.k_pos,
            lambda_pos=c.lambda_pos,
            k_neg=c.k_neg,
            lambda_neg=c.lambda_neg,
        )
        value = weighted_likelihood(policy.logp, phi * batch.advantage, mask)
        return policy_output(
            value,
            mask,
            ratio=self.ratio(logp, self.other(batch), mask),
            phi=torch.where(mask.any(-1), sequence_mean(phi, mask), 1.0),
        )
