"""What a step minimises: terms, aggregated over the whole minibatch whatever the micro-batches.

The loss of a minibatch is `sum_terms weight * sum_{i,t} w_it value_it`, where the aggregation
weights w come from counts over the whole minibatch. Any split of its rows therefore gives the same
gradient. A loss of scope "group" or "minibatch" first sees the whole minibatch's log-probs as a
leaf; each micro-batch then back-propagates its slice of dL/dlogp, so such losses need no code for
micro-batching either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import LossBatch, LossOutput, PolicyTerms, Term
from rlkit.distributed.learner import Learner
from rlkit.distributed.processes import ALONE, Processes
from rlkit.errors import UserError
from rlkit.interfaces import AnchorPolicy, Correction, PolicyLoss
from rlkit.ops import aggregate_weights, masked_log_ratio

DEFAULT_MAX_COMPLETION_LENGTH = 512
POLICY = "policy"
ANCHOR = "anchor"

Forward = Callable[[Tensor], PolicyTerms]
"""Rows of the minibatch ([b] int64) -> the policy's terms for them, [b, T]."""
Counts = Mapping[str, tuple[Tensor, Tensor]]
"""Term name -> valid tokens and counted rows of the whole minibatch."""


class MetricSums:
    """Running masked means (and maxima, for keys ending in `_max`) of unreduced metrics."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, float] = {}

    def add(self, metrics: Mapping[str, Tensor], mask: Tensor) -> None:
        """Add values [B, T] over the mask, or [B] over its non-empty rows."""
        for name, value in metrics.items():
            chosen = value[mask if value.dim() == mask.dim() else mask.any(-1)]
            if chosen.numel() == 0:
                continue
            if name.endswith("_max"):
                self._take(name, float(chosen.max()), 1.0)
            else:
                self._take(name, float(chosen.double().sum()), chosen.numel())

    def _take(self, name: str, total: float, count: float) -> None:
        """One more part of a figure."""
        if name.endswith("_max"):
            self.sums[name] = max(self.sums.get(name, float("-inf")), total)
            self.counts[name] = count
        else:
            self.sums[name] = self.sums.get(name, 0.0) + total
            self.counts[name] = self.counts.get(name, 0.0) + count

    def over(self, processes: Processes) -> MetricSums:
        """Those of all processes together."""
        if processes.count == 1:
            return self
        out = MetricSums()
        for sums, counts in processes.gather((self.sums, self.counts)):
            for name, total in sums.items():
                out._take(name, total, counts[name])
        return out

    def means(self) -> dict[str, float]:
        """The reduced metrics."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}


@dataclass
class Objective:
    """A loss, its corrections and an anchor, as one scalar to minimise."""

    loss: PolicyLoss[Any]
    corrections: Sequence[tuple[str, Correction[Any]]] = ()
    anchor: AnchorPolicy[Any] | None = None
    max_completion_length: int = DEFAULT_MAX_COMPLETION_LENGTH
    step: int = 1
    metrics: MetricSums = field(default_factory=MetricSums)
    processes: Processes = ALONE
    learner: Learner | None = None
    """Who back-propagates; None = torch."""

    def output(self, policy: PolicyTerms, batch: LossBatch, anchored: Tensor) -> LossOutput:
        """The terms of these rows: the corrected loss and the anchor's penalty.

        The penalty is on the `anchored` rows ([B] bool).
        """
        whole = batch
        weight: Tensor | None = None
        metrics: dict[str, Tensor] = {}
        for name, correction in self.corrections:
            corrected = correction(policy.detach(), batch)
            batch = corrected.batch
            weight = corrected.weight if weight is None else weight * corrected.weight
            metrics[f"correction/{name}_weight"] = corrected.weight
            metrics[f"correction/{name}_dropped"] = (~batch.mask | (corrected.weight == 0)).to(
                weight.dtype
            )
        out = self.loss(policy, batch)
        extra = [t for _, c in self.corrections for t in c.terms(policy, batch)]
        terms = [_weighted(term, weight) if weight is not None else term for term in out.terms]
        terms += extra
        metrics.update({f"{POLICY}/{k}": v for k, v in out.metrics.items()})
        if (
            self.anchor is not None
            and self.anchor.placement == "loss"
            and self.anchor.references(self.step)
        ):
            value = self.anchor.penalty(policy.logp, whole, self.step)
            per_token = all(term.value.dim() > 1 for term in out.terms)
            terms.append(
                Term(
                    name=ANCHOR,
                    value=torch.where(anchored[:, None], value, 0.0),
                    mask=whole.mask,
                    aggregation=None if per_token else "seq-mean-token-mean",
                    corrected=False,
                )
            )
        return LossOutput(terms=terms, metrics=metrics)

    def counts(self, terms: Sequence[Term]) -> Counts:
        """Valid tokens and rows of each term. Raises UserError if two have one name."""
        names = [term.name for term in terms]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"two terms of the loss are called '{twice}'; rename one")
        every = self.loss.config.count_empty_rows
        return {
            t.name: (
                t.mask.sum(),
                t.mask.new_ones(len(t.mask)).sum() if every else t.mask.any(-1).sum(),
            )
            for t in terms
        }

    def reduce(self, terms: Sequence[Term], counts: Counts) -> Tensor:
        """The part of the minibatch's loss that these rows contribute."""
        config = self.loss.config
        total: Tensor | None = None
        for term in terms:
            tokens, rows = (count.to(term.value.dtype) for count in counts[term.name])
            aggregation = term.aggregation or config.aggregation
            weights = aggregate_weights(
                term.mask,
                aggregation,  # type: ignore[arg-type]
                tokens=tokens,
                rows=rows,
                norm_length=config.norm_length or self.max_completion_length,
            )
            if term.value.dim() > 1:
                share = (weights * torch.where(term.mask, term.value, 0.0)).sum()
            else:
                weights = self._row_weights(term, weights, rows)
                share = (weights * torch.where(weights != 0, term.value, 0.0)).sum()
            total = term.weight * share if total is None else total + term.weight * share
        assert total is not None, "a loss must return at least one term"
        return total

    def _row_weights(self, term: Term, weights: Tensor, rows: Tensor) -> Tensor:
        """The weight [B] of a value a response: that of its tokens together.

        Under seq-mean-token-mean an empty response that counts keeps its place in the mean.
        """
        total = weights.sum(-1)
        aggregation = term.aggregation or self.loss.config.aggregation
        if self.loss.config.count_empty_rows and aggregation == "seq-mean-token-mean":
            total = torch.where(term.mask.any(-1), total, 1 / rows.clamp(min=1))
        return total

    def _accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Around a micro-batch: the processes' gradients meet in the minibatch's last one."""
        return nullcontext() if self.learner is None else self.learner.accumulate(last=last)

    def _back(self, value: Tensor) -> None:
        if self.learner is None:
            value.backward()  # type: ignore[no-untyped-call]
        else:
            self.learner.backward(value)

    @property
    def scope(self) -> str:
        """Which rows belong together: "token" if each stands alone in the loss and corrections."""
        every = {self.loss.scope, *(c.scope for _, c in self.corrections)}
        return "token" if every == {"token"} else "minibatch"

    def backward(self, forward: Forward, batch: LossBatch, splits: Sequence[Tensor]) -> float:
        """Accumulate the gradient of the minibatch's loss by micro-batches; return its value.

        `splits` partitions the minibatch's rows; of several processes each has a part of them.
        """
        anchored = self.anchored_rows(batch)
        alone = len(splits) == 1 and self.processes.count == 1
        if self.scope == "token" or alone:
            return self._backward_rows(forward, batch, splits, anchored, alone=alone)
        return self._backward_whole(forward, batch, splits, anchored)

    def _backward_rows(
        self,
        forward: Forward,
        batch: LossBatch,
        splits: Sequence[Tensor],
        anchored: Tensor,
        *,
        alone: bool,
    ) -> float:
        counts: Counts | None = None
        if not alone:
            # Under scope "token" the masks depend on the batch alone, so any log-probs give the
            # right counts.
            with torch.no_grad():
                stand_in = PolicyTerms(
                    logp=batch.prox_logp, entropy=torch.zeros_like(batch.prox_logp)
                )
                counts = self.counts(self.output(stand_in, batch, anchored).terms)
        total = batch.advantage.new_zeros((), dtype=torch.float64)
        for number, rows in enumerate(splits, start=1):
            with self._accumulate(last=number == len(splits)):
                policy = forward(rows)
                if not len(rows):  # the others have more rows, and wait for this gradient
                    self._back(policy.logp.sum())
                    continue
                part = batch.rows(rows)
                out = self.output(policy, part, anchored[rows])
                value = self.reduce(out.terms, counts or self.counts(out.terms))
                self._back(value)
            total += value.detach()
            self._record(out, policy, part)
        return float(self.processes.sum(total))

    def _backward_whole(
        self, forward: Forward, batch: LossBatch, splits: Sequence[Tensor], anchored: Tensor
    ) -> float:
        once = len(splits) == 1  # its graph can wait for the others' log-probs
        with torch.set_grad_enabled(once):
            parts = [forward(rows) for rows in splits]
        policy = self._gathered(parts, splits, batch)
        leaves = (policy.logp.requires_grad_(), policy.entropy.requires_grad_())
        out = self.output(policy, batch, anchored)
        value = self.reduce(out.terms, self.counts(out.terms))
        d_logp, d_entropy = torch.autograd.grad(value, leaves, materialize_grads=True)
        for number, rows in enumerate(splits, start=1):
            with self._accumulate(last=number == len(splits)):
                again = parts[0] if once else forward(rows)
                self._back(carrier(again, d_logp[rows], d_entropy[rows]))
        self._record(out, policy, batch)
        return value.item()

    def _gathered(
        self, parts: Sequence[PolicyTerms], splits: Sequence[Tensor], batch: LossBatch
    ) -> PolicyTerms:
        """The terms of the whole minibatch, of which the processes have computed parts."""
        logp, entropy = (parts[0].logp.new_zeros(batch.mask.shape) for _ in range(2))
        for part, rows in zip(parts, splits, strict=True):
            logp[rows], entropy[rows] = part.logp.detach(), part.entropy.detach()
        return PolicyTerms(logp=self.processes.sum(logp), entropy=self.processes.sum(entropy))

    def anchored_rows(self, batch: LossBatch) -> Tensor:
        """[B] bool: the rows the penalty pushes.

        Groups whose advantages are all zero may be left out.
        """
        if self.anchor is None or not self.anchor.config.skip_zero_advantage:
            return torch.ones_like(batch.expert)
        live = ((batch.advantage != 0) & batch.mask).any(-1)
        return torch.isin(batch.group, batch.group[live])

    def _record(self, out: LossOutput, policy: PolicyTerms, batch: LossBatch) -> None:
        with torch.no_grad():
            found = {k: v.detach() for k, v in out.metrics.items()}
            if f"{POLICY}/ratio_mean" not in found:
                ratio = masked_log_ratio(policy.logp, batch.behavior_logp, batch.mask, 20.0).exp()
                found[f"{POLICY}/ratio_mean"] = found[f"{POLICY}/ratio_max"] = ratio.detach()
            if self.anchor is not None and self.anchor.references(self.step):
                values = self.anchor.metrics(policy.logp.detach(), batch, self.step)
                found.update({f"{ANCHOR}/{k}": v for k, v in values.items()})
            self.metrics.add(found, batch.mask)
            by_age = [f"{POLICY}/{name}" for name in ("clip_fraction", "ratio_mean")]
            for age in sorted(set(batch.age.tolist())):
                rows = batch.age == age
                chosen = {f"{k}_age_{age}": found[k][rows] for k in by_age if k in found}
                self.metrics.add(chosen, batch.mask[rows])


def carrier(policy: PolicyTerms, d_logp: Tensor, d_entropy: Tensor) -> Tensor:
    """A scalar whose gradient in the terms [b, T] is the given one."""
    total = policy.logp.new_zeros(())
    for terms, gradient in ((policy.logp, d_logp), (policy.entropy, d_entropy)):
        if terms.requires_grad:
            total = total + (terms * gradient).sum()
    return total


def _weighted(term: Term, weight: Tensor) -> Term:
    """A term times the corrections' weight.

    A sequence term takes the geometric mean of its tokens' weights.
    """
    if not term.corrected:
        return term
    if term.value.dim() == 1:
        log_weight = torch.where(term.mask, weight, 1.0).log()
        weight = (log_weight.sum(-1) / term.mask.sum(-1).clamp(min=1)).exp()
    return replace(term, value=term.value * weight)


def loss_value(
    loss: PolicyLoss[Any],
    logp: Tensor,
    batch: LossBatch,
    *,
    entropy: Tensor | None = None,
    max_completion_length: int = DEFAULT_MAX_COMPLETION_LENGTH,
) -> tuple[Tensor, dict[str, float]]:
    """The scalar that training minimises for this batch, and the reduced metrics.

    The scalar is differentiable in `logp` [B, T].

    `entropy` [B, T] is the policy's token entropy (zeros when left out); `max_completion_length` is
    the length seq-mean-token-sum-norm divides by when the loss's `norm_length` is null.
    """
    objective = Objective(loss, max_completion_length=max_completion_length)
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp) if entropy is None else entropy)
    out = loss(policy, batch)
    value = objective.reduce(out.terms, objective.counts(out.terms))
    with torch.no_grad():
        objective.metrics.add({k: v.detach() for k, v in out.metrics.items()}, batch.mask)
    return value, {"loss": value.item(), **objective.metrics.means()}
