"""GAE for replayed responses, by V-trace (arXiv:1802.01561, arXiv:2111.00072)."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from algorithms.advantages.gae import GAE, GAEConfig
from rlkit.batch import AdvantageBatch, AdvantageOutput
from rlkit.ops import masked_log_ratio, whiten
from rlkit.registry import register

Bound = Annotated[float, Field(gt=0)]


class Traces(NamedTuple):
    """The truncated ratios prox / behavior, [B, T] each."""

    rho: Tensor
    c: Tensor


def vtrace(
    token_reward: Tensor, values: Tensor, mask: Tensor, traces: Traces, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages A and corrections v - V of the values, [B, T] each.

        delta_t   = R_t + gamma V_{t+1} - V_t
        A_t       = delta_t + gamma lam (v - V)_{t+1}
        (v - V)_t = rho_t delta_t + gamma lam c_t (v - V)_{t+1}

    t + 1 is the next valid token, as in `gae`.
    """
    advantage, correction = torch.zeros_like(values), torch.zeros_like(values)
    next_value, running = values.new_zeros(len(values)), values.new_zeros(len(values))
    for t in range(values.shape[1] - 1, -1, -1):
        valid = mask[:, t]
        delta = token_reward[:, t] + gamma * next_value - values[:, t]
        future = gamma * lam * running
        advantage[:, t] = torch.where(valid, delta + future, 0.0)
        step = traces.rho[:, t] * delta + traces.c[:, t] * future
        running = torch.where(valid, step, running)
        next_value = torch.where(valid, values[:, t], next_value)
        correction[:, t] = torch.where(valid, running, 0.0)
    return advantage, correction


class GAEVtraceConfig(GAEConfig):
    """Settings of GAE and of the truncation."""

    rho_bar: Bound = 1.0
    """Upper bound of the ratio prox / behavior at a token's own difference. It decides what the
    critic converges to: the value of the policy at the start of the step (infinity), or of one
    between that and the behavior policy."""
    c_bar: Bound = 1.0
    """Upper bound of the ratio by which later differences are passed back; it decides the variance
    alone. GePPO uses one bound, 1.0, for both."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.c_bar > self.rho_bar:
            raise ValueError(
                f"c_bar={self.c_bar} must not exceed rho_bar={self.rho_bar}; V-trace needs that"
            )
        return self


@register("advantage", "gae_vtrace")
class GAEVtrace(GAE[GAEVtraceConfig]):
    """PPO's advantages for data of an earlier policy: GAE with truncated ratios prox / behavior.

    The ratio of a token's own action is left to the loss: A_t weighs later differences alone
    (arXiv:2111.00072). The critic is fitted to the V-trace value v (arXiv:1802.01561,
    Eq. 1). With prox = behavior it is `gae` exactly. Demonstrations have no behavior log-probs and
    get ratio 1. prox must be the policy itself, not an average in its place (anchor=ppo_ewma).

    Public code: with whiten=false and one bound it is the authors' gae_vtrace (jqueeney/geppo),
    which then centres and scales the advantages with the ratios as weights; here they are whitened
    plainly.
    """

    sources = ("1802.01561", "2111.00072")
    needs = frozenset({"behavior", "prox"})
    prox_is_own = True

    def __call__(self, b: AdvantageBatch) -> AdvantageOutput:
        """Advantages and the values' targets, [B, T]."""
        c = self.config
        known = b.mask & ~b.expert[:, None]
        log_ratio = masked_log_ratio(b.prox_logp, b.behavior_logp, known)
        traces = Traces(
            rho=log_ratio.clamp(max=math.log(c.rho_bar)).exp(),
            c=log_ratio.clamp(max=math.log(c.c_bar)).exp(),
        )
        raw, correction = vtrace(b.token_reward, b.values, b.mask, traces, c.gamma, c.lam)
        returns = torch.where(b.mask, b.values + correction, 0.0)
        return AdvantageOutput(
            advantage=whiten(raw, b.mask, c.whiten_eps) if c.whiten else raw, returns=returns
        )
