"""Two safeguards for replay, after experience replayable conditions (arXiv:2402.10374).

The paper sees two causes of instability when responses are replayed: negative ones push the policy
without bound, and some of the stored ones no longer fit it. It answers with a counteraction and
with mining. Status: adapted. The paper's formulas could not be read; both here are ours.

Public code: none.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from algorithms.corrections.filters import without
from rlkit.batch import Corrected, LossBatch, PolicyTerms
from rlkit.interfaces import Correction, PartConfig
from rlkit.ops import masked_log_ratio, sequence_mean
from rlkit.registry import register


def moved(policy: PolicyTerms, batch: LossBatch) -> Tensor:
    """log r = log(pi / behavior) [B, T] without gradient, 0 where masked and in demonstrations."""
    known = batch.mask & ~batch.expert[:, None]
    return masked_log_ratio(policy.logp.detach(), batch.behavior_logp, known)


class ErcCounteractionConfig(PartConfig):
    """Settings of the counteraction."""

    form: Literal["weigh", "drop"] = "weigh"
    """weigh = tokens with A < 0 count min(1, r); drop = they count 0 where r < 1 - eps, else 1."""
    eps: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """How far r may fall below 1 before a token is dropped; PPO's clip range. Not used by weigh."""


@register("correction", "erc_counteraction")
class ErcCounteraction(Correction[ErcCounteractionConfig]):
    """Tokens with A < 0 lose weight as the policy leaves them: w = min(1, r), r = pi / behavior.

    A wrong token that has become rare is pushed down no further. Tokens with A >= 0 and
    demonstrations have weight 1, the denominators keep every token, and r is detached.

    Status: adapted from arXiv:2402.10374, whose formula could not be read; w is ours. TOPR
    (arXiv:2503.14286) bounds negative responses in the same way, by the ratio of the whole
    response.
    """

    sources = ("2402.10374",)
    needs = frozenset({"behavior"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch as it is, and the weight [B, T]."""
        c = self.config
        log_r = moved(policy, batch)
        if c.form == "weigh":
            kept = log_r.clamp(max=0).exp()
        else:
            kept = (log_r >= math.log1p(-c.eps)).to(log_r.dtype)
        return Corrected(batch=batch, weight=torch.where(batch.advantage < 0, kept, 1.0))


class ErcMiningConfig(PartConfig):
    """Settings of the mining."""

    m: Annotated[float, Field(ge=0)] = 0.1
    """Largest mean log-ratio, in nats per token and in either direction, of a replayed response
    that stays. No source gives a number; `opsm` has the same default."""


@register("correction", "erc_mining")
class ErcMining(Correction[ErcMiningConfig]):
    """A replayed response leaves the mask unless |mean_t log(pi / behavior)| <= m.

    Only stored responses that still fit the policy are trained on. Fresh ones, however stale their
    weights, and demonstrations stay; the denominators shrink with the mask. The policy is the one
    of the optimizer step, so a response may leave in a later pass over the batch.

    Status: adapted from arXiv:2402.10374, whose formula could not be read; the bound is ours.
    """

    sources = ("2402.10374",)
    needs = frozenset({"behavior"})
    scope = "minibatch"

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        """The batch with the smaller mask, and the 0/1 weight [B, T]."""
        distance = sequence_mean(moved(policy, batch), batch.mask).abs()
        return without(batch, batch.replayed & (distance > self.config.m))
