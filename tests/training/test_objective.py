"""The loss of a minibatch is the same number, with the same gradient, however its rows are
split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import Corrected, LossBatch, LossOutput, PolicyTerms, Term
from rlkit.distributed.processes import Processes
from rlkit.interfaces import AnchorConfig, Correction, LossConfig, PolicyLoss, Tokens
from rlkit.training.micro_batches import MicroBatches
from rlkit.training.objective import MinibatchResult, Objective
from rlkit.training.splits import split
from rlkit.training.sums import MetricSums
from tests.ranks import on_ranks
from tests.training.objectives import (
    AGGREGATIONS,
    Named,
    Near,
    Sequence,
    Surrogate,
    ToBase,
    gradient,
    late_backward,
    make_batch,
)


class Whole(Surrogate):
    """A ratio centred on the minibatch's own mean: no row can be computed alone."""

    scope = "minibatch"
    needs = frozenset({"entropy"})

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        delta = torch.where(batch.mask, policy.logp - batch.behavior_logp, 0.0)
        centred = delta - delta.sum() / batch.mask.sum()
        value = -(centred.exp() * batch.advantage) - policy.entropy
        return LossOutput(terms=[Term(name="policy", value=value, mask=batch.mask)])


class Halve(Correction):
    """Weight one half."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        return Corrected(batch=batch, weight=torch.full_like(batch.behavior_logp, 0.5))


class DropFirst(Correction):
    """Row 0 leaves the mask."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> Corrected:
        mask = batch.mask.clone()
        mask[0] = False
        kept = replace(batch, mask=mask)
        return Corrected(batch=kept, weight=torch.ones_like(batch.behavior_logp))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("cls", [Surrogate, Whole, Sequence])
@pytest.mark.parametrize("with_anchor", [False, True])
@pytest.mark.parametrize("count_empty", [False, True])
def test_any_split_gives_the_same_gradient_value_and_metrics(
    aggregation: Any, cls: type[PolicyLoss], with_anchor: bool, count_empty: bool
) -> None:
    def run(splits: list[list[int]]) -> tuple[Tensor, float, dict[str, float]]:
        anchor = ToBase(AnchorConfig(beta=0.1)) if with_anchor else None
        return gradient(
            cls(LossConfig(aggregation=aggregation, count_empty_rows=count_empty)), splits, anchor
        )

    expected, value, metrics = run([[0, 1, 2, 3, 4, 5, 6]])
    for splits in ([[0], [1], [2], [3], [4], [5], [6]], [[6, 2, 4], [0], [5, 1, 3]]):
        found, part, others = run(splits)
        assert (found - expected).abs().max() <= 1e-9
        assert abs(part - value) <= 1e-9
        assert others == pytest.approx(metrics, rel=1e-9)


def test_the_penalty_is_a_term_of_its_own_under_sequence_losses() -> None:
    """A sequence loss's anchor term is averaged over tokens first, then over responses."""
    logp, batch = make_batch()
    plain = gradient(Sequence(), [[0, 1, 2, 3, 4, 5, 6]])[0]
    anchored = gradient(
        Sequence(), [[0, 1, 2, 3, 4, 5, 6]], ToBase(AnchorConfig(beta=0.5, gradient_estimator="k2"))
    )[0]
    d = torch.where(batch.mask, logp - batch.anchor_logp["base"], 0.0)
    expected = 0.5 * d / batch.mask.sum(-1, keepdim=True).clamp(min=1) / 6
    torch.testing.assert_close(anchored - plain, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("skip", [True, False])
def test_a_zero_advantage_group_gets_no_push_unless_asked(skip: bool) -> None:
    logp, batch = make_batch()
    batch.advantage[2:4] = 0.0  # group 1
    theta = logp.clone().requires_grad_()
    anchor = ToBase(AnchorConfig(beta=0.5, skip_zero_advantage=skip))
    objective = Objective(Surrogate(), anchor=anchor)

    def forward(rows: Tensor) -> PolicyTerms:
        return PolicyTerms(logp=theta[rows], entropy=torch.zeros_like(theta[rows]))

    objective.backward(forward, batch, [torch.tensor([0, 2, 4, 6]), torch.tensor([1, 3, 5])])
    assert theta.grad is not None
    assert (theta.grad[3].abs().sum() == 0) == skip
    assert theta.grad[0].abs().sum() > 0


def test_a_correction_weighs_the_policy_term_and_not_the_penalty() -> None:
    logp, batch = make_batch()
    anchor = ToBase(AnchorConfig(beta=0.5))
    theta = logp.clone().requires_grad_()
    rows = [torch.arange(7)]

    def forward(part: Tensor) -> PolicyTerms:
        return PolicyTerms(logp=theta[part], entropy=torch.zeros_like(theta[part]))

    def run(corrections: list[tuple[str, Correction]], with_anchor: bool) -> float:
        objective = Objective(Surrogate(), corrections, anchor if with_anchor else None)
        return objective.backward(forward, batch, rows).value

    penalty = run([], True) - run([], False)
    halved = run([("halve", Halve())], True)
    assert halved == pytest.approx(0.5 * run([], False) + penalty)


@pytest.mark.parametrize(("names", "share"), [(("pg",), 0.5), (("bonus",), 1.0)])
def test_corrections_weigh_a_term_by_its_field_whatever_its_name(
    names: tuple[str, ...], share: float
) -> None:
    logp, batch = make_batch()
    loss = Named()
    loss.names = names
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    plain = Objective(loss).output(policy, batch, batch.mask.any(-1)).terms[0].value
    halved = Objective(loss, [("halve", Halve())]).output(policy, batch, batch.mask.any(-1))
    torch.testing.assert_close(halved.terms[0].value, share * plain)


def test_what_a_correction_drops_from_the_policy_term_stays_held_to_the_anchor() -> None:
    logp, batch = make_batch()
    theta = logp.clone().requires_grad_()

    def forward(part: Tensor) -> PolicyTerms:
        return PolicyTerms(logp=theta[part], entropy=torch.zeros_like(theta[part]))

    anchor = ToBase(AnchorConfig(beta=0.5, gradient_estimator="k2"))
    Objective(Surrogate(), [("drop", DropFirst())], anchor).backward(
        forward, batch, [torch.arange(7)]
    )
    assert theta.grad is not None
    d = torch.where(batch.mask, logp - batch.anchor_logp["base"], 0.0)
    expected = 0.5 * d[0] / batch.mask.sum()
    torch.testing.assert_close(theta.grad[0], expected, atol=1e-12, rtol=0)


def test_a_correction_is_charged_with_what_it_drops_itself() -> None:
    """The second drops nothing of what the first left, and masked tokens are nobody's."""
    logp, batch = make_batch()
    objective = Objective(Surrogate(), [("drop", DropFirst()), ("halve", Halve())])
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    found = objective.output(policy, batch, batch.mask.any(-1)).metrics
    dropped = batch.mask & (torch.arange(7) == 0)[:, None]
    assert torch.equal(found["correction/drop_dropped"] == 1, dropped)
    assert not found["correction/halve_dropped"].any()


def test_clip_and_ratio_metrics_are_split_by_age() -> None:
    logp, batch = make_batch()
    _, _, found = gradient(Surrogate(), [[0, 1, 2], [3, 4, 5, 6]])
    ratio = (logp - batch.behavior_logp).exp()
    for age in range(3):
        chosen = ratio[batch.age == age][batch.mask[batch.age == age]]
        assert found[f"policy/ratio_mean_age_{age}"] == pytest.approx(chosen.mean().item())
    assert found["policy/ratio_max"] == pytest.approx(ratio[batch.mask].max().item())


class Short(MicroBatches):
    """Rows that one rank has memory for."""

    def __init__(self, rows: int, processes: Processes) -> None:
        super().__init__(12, processes)
        self.rows = rows

    def take(self, rows: Tensor) -> None:
        if len(rows) > self.rows:
            raise torch.OutOfMemoryError("full")


@pytest.mark.slow
@pytest.mark.parametrize("cls", [Surrogate, Whole])
def test_ranks_halve_a_minibatch_together_and_the_gradient_stays(cls: type[PolicyLoss]) -> None:
    """The second rank has memory for one row at a time; micro-batches of four rows come first."""
    expected, value, _ = gradient(cls(LossConfig()), [[0, 1, 2, 3, 4, 5, 6]])
    tried: list[list[int]] = [[], []]
    rows = Tokens.of([torch.ones(1).long()] * 7, [torch.ones(2).long()] * 7)

    def rank(processes: Processes) -> tuple[Tensor, float]:
        logp, batch = make_batch()
        micro = Short(1 if processes.rank == 1 else 4, processes)
        objective = Objective(
            cls(LossConfig()), max_completion_length=9, processes=processes, agree=micro.agree
        )

        def call(tokens: int) -> tuple[Tensor, float]:
            tried[processes.rank].append(tokens)
            theta = logp.clone().requires_grad_()

            def forward(rows: Tensor) -> PolicyTerms:
                micro.take(rows)
                return PolicyTerms(logp=theta[rows] * 1.0, entropy=theta[rows] ** 2)

            splits = split(rows, tokens, processes, "padded")
            found = objective.backward(forward, batch, splits)
            assert theta.grad is not None
            return theta.grad, found.value

        return micro.run(call, least=3)

    found = on_ranks(rank)
    assert tried == [[12, 6, 3]] * 2
    assert torch.allclose(found[0][0] + found[1][0], expected, atol=1e-12)
    assert [number for _, number in found] == pytest.approx([value, value])


SHARES = [[0, 1], [2], []], [[3], [4, 5], [6]]
"""Micro-batches of two ranks."""


@pytest.mark.parametrize("loss", [Surrogate(), Whole()])
def test_every_row_counts_once_in_the_metrics_of_all_ranks(loss: PolicyLoss) -> None:
    """Whether the rows stand alone, as in other minibatches of the step, or are seen together."""
    every: Any = {"corrections": [("near", Near())], "max_completion_length": 9}
    alone, expected = late_backward(Objective(loss, **every), [[0, 1, 2], [3, 4, 5, 6]])

    def rank(processes: Processes) -> tuple[Tensor, MinibatchResult]:
        return late_backward(Objective(loss, **every, processes=processes), SHARES[processes.rank])

    found = on_ranks(rank)
    sums, counts = MetricSums().plus([s for _, r in found for s in r.sums]).totals()
    wanted, tokens = MetricSums().plus(expected.sums).totals()
    assert sums["correction/near_dropped"] > 0
    assert counts == tokens and sums == pytest.approx(wanted)
    torch.testing.assert_close(found[0][0] + found[1][0], alone)
    assert [result.value for _, result in found] == pytest.approx([expected.value] * 2)


def test_ranks_halve_together_when_they_start_a_minibatch_again() -> None:
    """Memory ends on one rank in the forwards that the smaller mask asks for."""
    tried: list[list[int]] = [[], []]

    def rank(processes: Processes) -> float:
        micro, forwards = MicroBatches(8, processes), list[int]()
        corrections = [("near", Near())]
        objective = Objective(Surrogate(), corrections, processes=processes, agree=micro.agree)

        def take() -> None:
            forwards.append(1)
            if processes.rank == 1 and len(forwards) == len(SHARES[1]) + 1:
                raise torch.OutOfMemoryError("full")

        def call(tokens: int) -> float:
            tried[processes.rank].append(tokens)
            return late_backward(objective, SHARES[processes.rank], take)[1].value

        return micro.run(call)

    first, second = on_ranks(rank)
    assert tried == [[8, 4]] * 2 and first == second
