"""SAPO: a soft gate in place of the clip."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from algorithms.ratio import RatioConfig, RatioLoss, policy_output
from algorithms.reinforce import weighted_likelihood
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.ops import Aggregation
from rlkit.registry import register


def soft_gate(ratio: Tensor, tau: Tensor) -> Tensor:
    """f(r) = sigmoid(tau (r - 1)) 4 / tau [B, T], of slope 1 at r = 1.

    By way of logsigmoid, whose gradient keeps its digits where the gate is nearly open.
    """
    return logsigmoid(tau * (ratio - 1)).exp() * 4 / tau


class SapoConfig(RatioConfig):
    """Settings of the gate."""

    aggregation: Aggregation = "seq-mean-token-mean"
    variant: Literal["paper", "detached_gate"] = "paper"
    """"paper" differentiates the gate; "detached_gate" (Trinity-RFT) takes it as a weight of the
    log-likelihood, which is another gradient (2 A / tau at ratio 1)."""
    tau_pos: Annotated[float, Field(gt=0)] = 1.0
    """Steepness where the advantage is positive."""
    tau_neg: Annotated[float, Field(gt=0)] = 1.05
    """Steepness elsewhere; above tau_pos it holds negative advantages more tightly."""


@register("loss", "sapo")
class SAPO(RatioLoss[SapoConfig]):
    """The gradient fades as the ratio leaves 1, instead of stopping at a clip.

        L = -f(r) A,  f(r) = sigmoid(tau (r - 1)) 4 / tau,  r = pi / prox

    The gradient weight is 4 p (1 - p) r A with p = sigmoid(tau (r - 1)), which is A at r = 1.
    Source: arXiv:2511.20347; averaged over a response's tokens, then over responses.

    Public code: verl, TRL, AReaL, SkyRL and ms-swift have this gradient. Trinity-RFT's detached
    gate with a token mean does not; it is the variant "detached_gate".
    """

    sources = ("2511.20347",)

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        """Per-token terms; the framework aggregates them."""
        c, mask, advantage = self.config, batch.mask, batch.advantage
        ratio = self.ratio(policy.logp, self.other(batch), mask)
        tau = torch.where(advantage > 0, ratio.new_tensor(c.tau_pos), c.tau_neg)
        gate = soft_gate(ratio, tau)
        if c.variant == "paper":
            value = -gate * advantage
        else:
            value = weighted_likelihood(policy.logp, gate * advantage, mask)
        return policy_output(value, mask, ratio=ratio, gate=gate)
