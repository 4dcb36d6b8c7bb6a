"""The log-probs that parts read besides the policy's own: of pi_k and of an anchor's references.

`plan_forwards` decides which forwards a step needs, for which rows and why; `add_references` runs
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from rlkit.rewards.weights import Rewards
from rlkit.training.cached import CachedLogprobs
from rlkit.training.metrics import engine_mismatch
from rlkit.training.micro_batches import Forwards

BehaviorLogp = Literal["own", "rounded", "foreign"]
"""How behavior log-probs of pi_k's samples relate to the trainer's own: equal up to float32
rounding, equal up to a coarser rounding, or another engine's, compared with the trainer's each
step."""


def references_in(needs: Iterable[str]) -> set[str]:
    """The references among what is read: base of anchor:base."""
    return {need.removeprefix("anchor:") for need in needs if need.startswith("anchor:")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts that decide which forwards a step needs, and the rewards."""

    loss: PolicyLoss[Any]
    corrections: Sequence[tuple[str, Correction[Any]]]
    advantage: AdvantageEstimator[Any]
    anchor: AnchorPolicy[Any]
    rewards: Rewards = field(default_factory=dict)
    """What the total is the weighted sum of."""
    reads: frozenset[str] = frozenset()
    """What settings of the run read, by the names of the parts' `needs`."""

    @property
    def needed(self) -> frozenset[str]:
        """What the loss, a correction, the advantage, the penalty or a setting reads."""
        others = (correction.needs for _, correction in self.corrections)
        weighed = {"behavior"} if self.anchor.config.importance_weight else set[str]()
        return self.reads.union(self.loss.needs, self.advantage.needs, weighed, *others)

    def needs(self, what: str) -> bool:
        """Whether one of them reads it."""
        return what in self.needed

    def references(self, step: int) -> dict[str, Reference | None]:
        """Those a part, the penalty or prox_logp reads; None stands for pi_k."""
        names = {*self.anchor.references(step), *references_in(self.needed)}
        if self.proximal is not None:
            names.add(self.proximal)
        return {name: self.anchor.reference(name) for name in sorted(names)}

    @property
    def masks_by_prox(self) -> bool:
        """Whether a correction's mask depends on prox_logp."""
        return any(correction.mask_reads_prox for _, correction in self.corrections)

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
    late: Tensor
    """[B] bool: rows whose log-probs under pi_k are those of the first update's own forward."""
    compared: Tensor
    """[B] bool: rows that pi_k sampled whose log-probs are compared with the engine's."""
    reads_prox: bool
    """Whether a part reads the policy's own log-probs."""
    references: Mapping[str, Reference | None]
    """Each scores every row that has no cached log-probs under it; None stands for pi_k."""
    proximal: str | None
    """The reference whose log-probs become prox_logp."""


def plan_forwards(
    rows: Rows, step: int, parts: Parts, behavior: BehaviorLogp, first: Tensor
) -> ForwardPlan:
    """Plan the forwards whose results the step reads, and no others.

    The rows of `first` ([B] bool) are trained before the weights move.
    """
    references, anchor = parts.references(step), parts.anchor
    prox_early = "prox" in parts.advantage.needs or parts.masks_by_prox
    reads_early = (
        (prox_early and parts.proximal is None)
        or anchor.placement == "reward"  # the penalty is on pi_k
        or None in references.values()  # a reference is pi_k
    )
    reads_prox = (
        reads_early
        or (parts.needs("prox") and parts.proximal is None)  # the loss's denominator
        or anchor.config.bias_correction  # its ratio is to pi_k
    )
    current, none = rows.current, torch.zeros_like(rows.current)
    if reads_prox:
        scored = ~current if behavior == "own" else ~none
    else:  # what the first update computes anyway shows how far the engine is
        scored = current & first if behavior == "foreign" else none
    late = scored & first & (not (reads_prox and reads_early))
    return ForwardPlan(
        policy_rows=(scored & ~late).nonzero().squeeze(-1),
        late=late,
        compared=none if behavior == "own" else scored & current,
        reads_prox=reads_prox,
        references=references,
        proximal=parts.proximal,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """The log-probs of a batch under pi_k, as far as they are read."""

    logp: Tensor
    """[B, T]"""
    late: Tensor
    """[B] bool: not known yet, see `ForwardPlan`."""
    compared: Tensor
    """[B] bool: compared with the engine's."""
    is_prox: bool
    """Whether they are the batch's prox_logp."""

    def completed(self, batch: LossBatch, found: Tensor) -> tuple[LossBatch, Own]:
        """The batch and these with the late rows of `found` [B, T]."""
        logp = torch.where(self.late[:, None], found, self.logp)
        if self.is_prox:
            batch = replace(batch, prox_logp=logp)
        return batch, replace(self, logp=logp, late=torch.zeros_like(self.late))

    def mismatch(self, batch: LossBatch) -> dict[str, float]:
        """How far the engine's log-probs are from them."""
        return engine_mismatch(batch, self.logp, self.compared)


def add_references(
    rows: Rows, plan: ForwardPlan, anchor: AnchorPolicy[Any], policy: Policy, forwards: Forwards
) -> tuple[LossBatch, Own]:
    """The batch with prox_logp and anchor_logp as planned, and pi_k's own log-probs."""
    batch = rows.batch
    logp = batch.behavior_logp.clone()
    logp[plan.policy_rows] = forwards.by_rows(policy.logp, rows.tokens, plan.policy_rows)
    if plan.reads_prox:
        batch = replace(batch, prox_logp=logp)
    logps = {
        name: batch.prox_logp
        if reference is None
        else CachedLogprobs(name, anchor.number(name)).logp(
            reference, rows.samples, rows.tokens, forwards
        )
        for name, reference in plan.references.items()
    }
    if plan.proximal is not None:
        batch = replace(batch, prox_logp=logps[plan.proximal])
    is_prox = plan.reads_prox and plan.proximal is None
    own = Own(logp=logp, late=plan.late, compared=plan.compared, is_prox=is_prox)
    return replace(batch, anchor_logp=logps), own
