"""Losses and an anchor made up for the tests of the objective, and a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlkit.batch import Corrected, LossBatch, LossOutput, PolicyTerms, Term
from rlkit.interfaces import AnchorPolicy, Correction, PolicyLoss
from rlkit.training.objective import MinibatchResult, Objective
from rlkit.training.sums import MetricSums

AGGREGATIONS = [
    "token-mean",
    "token-sum",
    "seq-mean-token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-sum-norm",
]


class Surrogate(PolicyLoss):
    """-ratio * advantage, per token."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        ratio = self.ratio(policy.logp, batch.behavior_logp, batch.mask)
        terms = [Term(name="policy", value=-ratio * batch.advantage, mask=batch.mask)]
        if "entropy" in self.needs:
            entropy = Term(name="entropy", value=-policy.entropy, mask=batch.mask, weight=0.3)
            terms.append(entropy)
        return LossOutput(terms=terms, metrics={"ratio_mean": ratio, "ratio_max": ratio})


class Sequence(PolicyLoss):
    """One value a response."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        delta = torch.where(batch.mask, policy.logp - batch.behavior_logp, 0.0)
        value = -delta.sum(-1) * batch.advantage[:, 0]
        return LossOutput(terms=[Term(name="policy", value=value, mask=batch.mask)])


class Named(PolicyLoss):
    """Terms of given names, of which the last is no estimate under the behavior policy."""

    names: tuple[str, ...] = ("pg", "bonus")

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        value = -policy.logp * batch.advantage
        return LossOutput(
            terms=[
                Term(name=n, value=value, mask=batch.mask, corrected=n != "bonus")
                for n in self.names
            ]
        )


class Near(Correction):
    """A mask that depends on pi_k: tokens where it is far from the behavior policy leave it."""

    needs = frozenset({"behavior", "prox"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        near = (batch.prox_logp - batch.behavior_logp).abs() < 1.0
        kept = replace(batch, mask=batch.mask & near)
        return Corrected(batch=kept, weight=torch.ones_like(batch.behavior_logp))


class ToBase(AnchorPolicy):
    """Holds the policy to one reference."""

    def weights(self, step: int) -> Mapping[str, float]:
        return {"base": 1.0}

    def reference(self, name: str) -> None:
        return None

    def rebase(self, policy: Any) -> None:
        pass


def make_batch(rows: int = 7, length: int = 5, seed: int = 0) -> tuple[Tensor, LossBatch]:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    lengths = torch.randint(1, length + 1, (rows,), generator=g)
    lengths[2] = 0
    batch = LossBatch(
        mask=torch.arange(length) < lengths[:, None],
        advantage=draw(rows, 1).expand(rows, length).clone(),
        behavior_logp=draw(rows, length) - 2,
        prox_logp=draw(rows, length) - 2,
        anchor_logp={"base": draw(rows, length) - 2},
        reward=draw(rows),
        group=torch.arange(rows) // 2,
        age=torch.arange(rows) % 3,
        expert=torch.zeros(rows, dtype=torch.bool),
        truncated=torch.zeros(rows, dtype=torch.bool),
    )
    return draw(rows, length) - 2, batch


def gradient(
    loss: PolicyLoss, splits: list[list[int]], anchor: AnchorPolicy | None = None
) -> tuple[Tensor, float, dict[str, float]]:
    logp, batch = make_batch()
    theta = logp.clone().requires_grad_()
    objective = Objective(loss, anchor=anchor, max_completion_length=9)

    def forward(rows: Tensor) -> PolicyTerms:
        return PolicyTerms(logp=theta[rows] * 1.0, entropy=theta[rows] ** 2)

    found = objective.backward(forward, batch, [torch.tensor(s) for s in splits])
    assert theta.grad is not None
    return theta.grad, found.value, MetricSums().plus(found.sums).means()


def late_backward(
    objective: Objective, splits: list[list[int]], take: Callable[[], None] = lambda: None
) -> tuple[Tensor, MinibatchResult]:
    """The gradient of a minibatch whose prox_logp its own forward finds, and its result."""
    logp, batch = make_batch()
    theta = logp.clone().requires_grad_()

    def forward(rows: Tensor) -> PolicyTerms:
        take()
        rows = rows if len(rows) else torch.zeros(1, dtype=torch.int64)
        return PolicyTerms(logp=theta[rows] * 1.0, entropy=theta[rows] ** 2)

    batch = replace(batch, prox_logp=batch.behavior_logp)
    parts = [torch.tensor(part, dtype=torch.int64) for part in splits]
    found = objective.backward(forward, batch, parts, torch.ones(7, dtype=torch.bool))
    assert theta.grad is not None
    return theta.grad, found
