"""What a step minimizes: terms, aggregated over the whole minibatch whatever the micro-batches.

The loss of a minibatch is `sum_terms weight * sum_{i,t} w_it value_it`, where the aggregation
weights w come from counts over the whole minibatch. Any split of its rows therefore gives the same
gradient. A loss of scope "group" or "minibatch" first sees the whole minibatch's log-probs as a
leaf; each micro-batch then back-propagates its slice of dL/dlogp, so such losses need no code for
micro-batching either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.distributed.learner import Backprop
from rlkit.distributed.processes import SINGLE, Processes
from rlkit.interfaces import AnchorPolicy, Correction, PolicyLoss
from rlkit.training.aggregation import (
    DEFAULT_MAX_COMPLETION_LENGTH,
    Aggregating,
    Counts,
    weighted,
)
from rlkit.training.metrics import Counted, loss_sums
from rlkit.training.micro_batches import MicroBatches
from rlkit.training.sums import Sums

Forward = Callable[[Tensor], PolicyTerms]
"""Rows of the minibatch ([b] int64) -> the policy's differentiable terms for them, [b, t]; for no
rows it still runs the model, since other ranks may wait for this one's gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinibatchResult:
    """The results of one minibatch, besides the gradient."""

    value: float
    """The loss."""
    sums: Sums
    """This rank's share of the metrics, for `MetricSums`: every row is in one rank's."""
    terms: Sequence[tuple[Tensor, PolicyTerms]]
    """This rank's rows of the minibatch and the policy's terms for them, detached."""


@dataclass(frozen=True)
class Objective(Aggregating):
    """A loss, its corrections and an anchor at one training step, as one scalar to minimize."""

    loss: PolicyLoss[Any]
    corrections: Sequence[tuple[str, Correction[Any]]] = ()
    anchor: AnchorPolicy[Any] | None = None
    max_completion_length: int = DEFAULT_MAX_COMPLETION_LENGTH
    step: int = 1
    processes: Processes = SINGLE
    backprop: Backprop = field(default_factory=Backprop)
    device: torch.device | None = None
    """Where losses are computed; None = where the batch is."""
    agree: Callable[..., None] = MicroBatches(0).agree
    """Called before a rank waits for the others, see `MicroBatches`."""
    watch: Callable[[Tensor, Tensor, Mapping[str, Tensor]], object] = lambda *_: None
    """Told some rows of the minibatch, their log-probs and the loss's unreduced metrics."""

    def output(self, policy: PolicyTerms, batch: LossBatch, anchored: Tensor) -> LossOutput:
        """The terms of these rows: the corrected loss and the anchor's penalty.

        The penalty is on the `anchored` rows ([B] bool).
        """
        whole = batch
        weight: Tensor | None = None
        metrics: dict[str, Tensor] = {}
        for name, correction in self.corrections:
            given, corrected = batch.mask, correction.checked(policy.detach(), batch)
            batch = corrected.batch
            weight = corrected.weight if weight is None else weight * corrected.weight
            dropped = given & (~batch.mask | (corrected.weight == 0))
            metrics[f"correction/{name}_weight"] = corrected.weight
            metrics[f"correction/{name}_dropped"] = dropped.to(weight.dtype)
        out = self.loss.checked(policy, batch)
        extra = [t for _, c in self.corrections for t in c.terms(policy, batch)]
        terms = [weighted(term, weight) if weight is not None else term for term in out.terms]
        terms += extra
        metrics.update({f"policy/{k}": v for k, v in out.metrics.items()})
        if (
            self.anchor is not None
            and self.anchor.placement == "loss"
            and self.anchor.references(self.step)
        ):
            value = self.anchor.penalty(policy.logp, whole, self.step)
            per_token = all(term.value.dim() > 1 for term in out.terms)
            terms.append(
                Term(
                    name="anchor",
                    value=torch.where(anchored[:, None], value, 0.0),
                    mask=whole.mask,
                    aggregation=None if per_token else "seq-mean-token-mean",
                    corrected=False,
                )
            )
        return LossOutput(terms=terms, metrics=metrics)

    @property
    def scope(self) -> str:
        """Which rows belong together: "token" if each stands alone in the loss and corrections."""
        every = {self.loss.scope, *(c.scope for _, c in self.corrections)}
        return "token" if every == {"token"} else "minibatch"

    def anchored_rows(self, batch: LossBatch) -> Tensor:
        """[B] bool: the rows the penalty pushes.

        Groups whose advantages are all zero may be left out.
        """
        if self.anchor is None or not self.anchor.config.skip_zero_advantage:
            return torch.ones_like(batch.expert)
        live = ((batch.advantage != 0) & batch.mask).any(-1)
        return torch.isin(batch.group, batch.group[live])

    def backward(
        self,
        forward: Forward,
        batch: LossBatch,
        splits: Sequence[Tensor],
        late: Tensor | None = None,
    ) -> MinibatchResult:
        """Accumulate the gradient of a minibatch's loss, one micro-batch after the other.

        `splits` are this rank's micro-batches of its rows; one without rows stands for one that
        only other ranks have. `late` rows ([b] bool) take their prox_logp from this forward.
        """
        minibatch = _Minibatch(self, forward, batch, late)
        if self.scope == "token" or (len(splits) == 1 and self.processes.world_size == 1):
            return minibatch.row_by_row(splits)
        return minibatch.all_rows_at_once(splits)


class _Minibatch:
    """The forwards and backwards of one minibatch."""

    def __init__(
        self, objective: Objective, forward: Forward, batch: LossBatch, late: Tensor | None
    ) -> None:
        device = objective.device or batch.mask.device
        self.late = late.to(device)[:, None] if late is not None and late.any() else None
        self.objective, self.forward, self.batch = objective, forward, batch.to(device)
        self.processes, self.backprop = objective.processes, objective.backprop
        self.anchored = objective.anchored_rows(batch).to(device)
        self.counted = Counted.of(batch)
        self.sums = partial(loss_sums, anchor=objective.anchor, step=objective.step)

    def terms(self, rows: Tensor) -> PolicyTerms:
        """The policy's terms for some rows, [b, T] with the minibatch's T."""
        terms = self.forward(rows)
        wider = (0, self.batch.mask.shape[1] - terms.logp.shape[1])
        return terms.map(lambda x: pad(x[: len(rows)], wider if x.dim() > 1 else (0, 0)))

    def _completed(self, batch: LossBatch, policy: PolicyTerms, late: Tensor | None) -> LossBatch:
        """The batch, whose late rows ([b, 1] bool) take prox_logp from the policy as it is."""
        if late is None:
            return batch
        prox = torch.where(late, policy.logp.detach(), batch.prox_logp)
        return replace(batch, prox_logp=prox)

    def _backward(self, value: Tensor, *, last: bool) -> None:
        """Back-propagate a micro-batch's part; in the last one ranks wait for each other."""
        if last:
            self.objective.agree(last=True)
        self.backprop.backward(value)

    def row_by_row(self, splits: Sequence[Tensor]) -> MinibatchResult:
        """Each micro-batch's part of the loss is computed from its own rows."""
        objective, batch = self.objective, self.batch
        counts = None if len(splits) == 1 and self.processes.world_size == 1 else self._counts()
        found: list[Counts] = []
        total = batch.advantage.new_zeros((), dtype=torch.float64)
        sums: list[tuple[str, Tensor | float, float]] = []
        terms: list[tuple[Tensor, PolicyTerms]] = []
        for number, rows in enumerate(splits, start=1):
            last = number == len(splits)
            with self.backprop.accumulate(last=last):
                policy = self.terms(rows)
                if not len(rows):
                    self._backward(policy.logp.sum(), last=last)
                    continue
                late = None if self.late is None else self.late[rows]
                part = self._completed(batch.rows(rows), policy, late)
                out = objective.output(policy, part, self.anchored[rows])
                found.append(objective.counts(out.terms))
                value = objective.reduce(out.terms, counts or found[0])
                self._backward(value, last=last)
            total += value.detach()
            sums += self.sums(out.metrics, policy.logp, part, counted=self.counted.rows(rows))
            terms.append((rows, policy.detach()))
            objective.watch(rows, policy.logp, out.metrics)
        if self.late is not None and counts is not None and self._differ(counts, found):
            self.backprop.zero_grad()
            objective.agree(last=False)  # memory may end again, and ranks still halve together
            return self.all_rows_at_once(splits)
        return MinibatchResult(
            value=float(self.processes.all_reduce(total)), sums=sums, terms=terms
        )

    def _counts(self) -> Counts:
        """Under scope "token" masks depend on the batch alone, so any log-probs give the counts."""
        logp = self.batch.prox_logp
        stand_in = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
        with torch.no_grad():
            out = self.objective.output(stand_in, self.batch, self.anchored)
            return self.objective.counts(out.terms)

    def _differ(self, counts: Counts, found: Sequence[Counts]) -> bool:
        """Whether a mask depends on what the late rows' prox_logp turned out to be."""
        assumed = torch.stack([count for both in counts.values() for count in both])
        parts = [torch.stack([c for name in counts for c in part[name]]) for part in found]
        total = torch.stack(parts).sum(0) if parts else torch.zeros_like(assumed)
        return bool((self.processes.all_reduce(total) != assumed).any())

    def all_rows_at_once(self, splits: Sequence[Tensor]) -> MinibatchResult:
        """The loss sees every row's log-probs as a leaf; its gradient is then back-propagated."""
        objective, batch = self.objective, self.batch
        once = len(splits) == 1  # its graph can wait for the other ranks' log-probs
        with torch.set_grad_enabled(once):
            parts = [self.terms(rows) for rows in splits]
        objective.agree(last=False)
        policy = self._gathered(parts, splits).map(Tensor.requires_grad_)
        batch = self._completed(batch, policy, self.late)
        leaves = (policy.logp, policy.entropy, policy.head)
        out = objective.output(policy, batch, self.anchored)
        value = objective.reduce(out.terms, objective.counts(out.terms))
        gradients = torch.autograd.grad(value, leaves, materialize_grads=True)
        for number, rows in enumerate(splits, start=1):
            last = number == len(splits)
            with self.backprop.accumulate(last=last):
                again = parts[0] if once else self.terms(rows)
                self._backward(grad_surrogate(again, [g[rows] for g in gradients]), last=last)
        sums = self.sums(out.metrics, policy.logp, batch, counted=self.counted)
        share = sums if self.processes.is_main else []  # every rank has those of all rows
        objective.watch(torch.arange(len(policy.logp)), policy.logp, out.metrics)
        terms = [(rows, p.detach()) for rows, p in zip(splits, parts, strict=True)]
        return MinibatchResult(value=value.item(), sums=share, terms=terms)

    def _gathered(self, parts: Sequence[PolicyTerms], splits: Sequence[Tensor]) -> PolicyTerms:
        """The terms of the whole minibatch, gathered from every rank."""
        whole = parts[0].map(lambda x: x.new_zeros(len(self.batch.mask), *x.shape[1:]))
        for part, rows in zip(parts, splits, strict=True):
            whole.logp[rows], whole.entropy[rows] = part.logp.detach(), part.entropy.detach()
            whole.head[rows] = part.head.detach()
        return whole.map(self.processes.all_reduce)


def grad_surrogate(policy: PolicyTerms, gradients: Sequence[Tensor]) -> Tensor:
    """A scalar whose gradients in the log-probs, the entropies and the head are the given ones."""
    total = policy.logp.new_zeros(())
    for terms, gradient in zip((policy.logp, policy.entropy, policy.head), gradients, strict=True):
        if terms.requires_grad:
            total = total + (terms * gradient).sum()
    return total
