"""The log-probs that parts read besides the policy's own: of pi_k and of an anchor's references.

`plan_forwards` decides which forwards a step needs, for which rows and why; `add_references` runs
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rlkit.batch import LossBatch, Sample
from rlkit.interfaces import (
    AdvantageEstimator,
    AnchorPolicy,
    Correction,
    PolicyLoss,
    Reference,
    Tokens,
)
from rlkit.models.policy import Policy
from rlkit.training.metrics import engine_mismatch
from rlkit.training.micro_batches import Forwards

CACHED = "anchor_logp:"
"""The prefix of the `Sample.extras` keys that cache the log-probs of a reference."""
BehaviorLogp = Literal["own", "rounded", "foreign"]
"""How behavior log-probs of pi_k's samples relate to the trainer's own: equal up to float32
rounding, equal up to a coarser rounding, or another engine's, compared with the trainer's each
step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts that decide which forwards a step needs."""

    loss: PolicyLoss[Any]
    corrections: Sequence[tuple[str, Correction[Any]]]
    advantage: AdvantageEstimator[Any]
    anchor: AnchorPolicy[Any]

    def needs(self, what: str) -> bool:
        """Whether the loss, a correction or the advantage reads it."""
        read = {*self.loss.needs, *self.advantage.needs}
        return what in read.union(*(correction.needs for _, correction in self.corrections))

    def references(self, step: int) -> dict[str, Reference | None]:
        """Those the loss, the penalty or prox_logp reads; None stands for pi_k."""
        names = set(self.anchor.references(step))
        names |= {n.removeprefix("anchor:") for n in self.loss.needs if n.startswith("anchor:")}
        if self.proximal is not None:
            names.add(self.proximal)
        return {name: self.anchor.reference(name) for name in sorted(names)}

    @property
    def proximal(self) -> str | None:
        """The reference that replaces pi_k in prox_logp, if any part reads that."""
        return self.anchor.proximal if self.needs("prox") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The responses of some groups as tensors."""

    samples: Sequence[Sample]
    tokens: Tokens
    batch: LossBatch
    """Without advantages; prox_logp is behavior_logp."""

    @property
    def current(self) -> Tensor:
        """[B] bool, sampled by pi_k, whether fresh or replayed."""
        return (self.batch.age == 0) & ~self.batch.expert


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPlan:
    """Which forwards a batch needs before its updates, for which rows, and why."""

    policy_rows: Tensor
    """[b] int64: rows the policy scores, since their behavior log-probs are not its own."""
    reads_prox: bool
    """Whether a part reads the policy's own log-probs."""
    compares_engine: bool
    """Whether those of rows that pi_k sampled are compared with the engine's."""
    references: Mapping[str, Reference | None]
    """Each scores every row that has no cached log-probs under it; None stands for pi_k."""
    proximal: str | None
    """The reference whose log-probs become prox_logp."""


def plan_forwards(rows: Rows, step: int, parts: Parts, behavior: BehaviorLogp) -> ForwardPlan:
    """Plan the forwards whose results the step reads, and no others."""
    references, anchor = parts.references(step), parts.anchor
    reads_prox = (
        (parts.needs("prox") and parts.proximal is None)  # the loss's denominator
        or anchor.placement == "reward"  # the penalty is on pi_k
        or anchor.config.bias_correction  # its ratio is to pi_k
        or None in references.values()  # a reference is pi_k
    )
    current = rows.current
    if reads_prox:
        scored = ~current if behavior == "own" else torch.ones_like(current)
    else:
        scored = current if behavior == "foreign" else torch.zeros_like(current)
    return ForwardPlan(
        policy_rows=scored.nonzero().squeeze(-1),
        reads_prox=reads_prox,
        compares_engine=behavior == "foreign" or (behavior == "rounded" and reads_prox),
        references=references,
        proximal=parts.proximal,
    )


@dataclass(frozen=True)
class CachedLogprobs:
    """Log-probs under a frozen reference, cached with the samples while it stays the same."""

    name: str
    number: int | None
    """Which policy the name stands for; None = one that moves, so nothing is cached."""

    @property
    def key(self) -> str:
        """Their key in `Sample.extras`."""
        return f"{CACHED}{self.name}:{self.number}"

    def logp(self, reference: Reference, rows: Rows, forwards: Forwards) -> Tensor:
        """[B, T]; only samples that do not have them yet cost a forward."""
        caches, samples = self.number is not None, rows.samples
        missing = [i for i, s in enumerate(samples) if not caches or self.key not in s.extras]
        out = torch.zeros(rows.tokens.response_ids.shape)
        if missing:
            out[missing] = forwards.by_rows(reference.logp, rows.tokens, torch.tensor(missing))
        for i, sample in enumerate(samples) if caches else ():
            length = len(sample.response_ids)
            if self.key in sample.extras:
                out[i, :length] = torch.as_tensor(sample.extras[self.key])
            else:
                self._store(sample, out[i, :length].clone())
        return out

    def _store(self, sample: Sample, logp: Tensor) -> None:
        """Store them in place of those under an earlier policy of the same name."""
        stem = self.key.rpartition(":")[0] + ":"
        for key in [key for key in sample.extras if key.startswith(stem)]:
            del sample.extras[key]
        sample.extras[self.key] = logp


def add_references(
    rows: Rows, plan: ForwardPlan, anchor: AnchorPolicy[Any], policy: Policy, forwards: Forwards
) -> tuple[LossBatch, dict[str, float]]:
    """The batch with prox_logp and anchor_logp as planned, and the engine's mismatch."""
    batch = rows.batch
    prox = batch.behavior_logp.clone()
    prox[plan.policy_rows] = forwards.by_rows(policy.logp, rows.tokens, plan.policy_rows)
    mismatch = engine_mismatch(batch, prox, rows.current) if plan.compares_engine else {}
    if plan.reads_prox:
        batch = replace(batch, prox_logp=prox)
    logps = {
        name: batch.prox_logp
        if reference is None
        else CachedLogprobs(name, anchor.number(name)).logp(reference, rows, forwards)
        for name, reference in plan.references.items()
    }
    if plan.proximal is not None:
        batch = replace(batch, prox_logp=logps[plan.proximal])
    return replace(batch, anchor_logp=logps), mismatch
