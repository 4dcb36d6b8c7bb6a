"""Masks of responses and tokens, as weights or out of the mask, and the entropy bonus, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch, PolicyTerms
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing import check_correction
from rlkit.testing.corrections import Plain
from rlkit.testing.losses import examples
from rlkit.training.objective import Objective
from tests.algorithms.corrections.hand import MASK, apply, batch_of, weight_of


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


K = tensor([0.5, 4.0, 99.0], [1.5, 1.5, 1.5])  # geometric means sqrt(2) and 1.5
ONES = [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]


# ---- responses by the geometric mean of prox / behavior


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"is_min": 0.5, "is_max": 1.45}, [True, False]),
        ({"is_min": 1.45, "is_max": 2.0}, [False, True]),
        ({"is_min": 1.0, "is_max": 2.0}, [True, True]),
        ({"is_min": 1.0, "is_max": 1.3, "is_log_clamp": 0.25}, [True, True]),
        ({}, [False, False]),
    ],
)
def test_geo_mask_takes_responses_out_of_the_mask(fields: dict[str, Any], rows: list[bool]) -> None:
    """A clamp of 1/4 makes the first mean 0 and the second 1/4, which is below log 1.3."""
    logp, batch = batch_of(K)
    out = apply(build("correction", "geo_mask", **fields), logp, batch)
    kept = torch.tensor(rows)[:, None]
    assert torch.equal(out.batch.mask, MASK & kept)
    assert torch.equal(out.weight, kept.double().expand(2, 3))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"is_max": 1.45}, [[0.5, 4, 0], [0, 0, 0]]),
        ({"is_min": 1.45}, [[0, 0, 0], [1.5, 1.5, 1.5]]),
        ({}, [[0.5, 4, 0], [1.5, 1.5, 1.5]]),
        ({"is_log_clamp": math.log(3)}, [[0.5, 3, 0], [1.5, 1.5, 1.5]]),
    ],
)
def test_seq_mask_tis_weighs_the_tokens_of_kept_responses(
    fields: dict[str, Any], expected: list[list[float]]
) -> None:
    torch.testing.assert_close(weight_of("seq_mask_tis", *batch_of(K), **fields), tensor(*expected))


@pytest.mark.parametrize("factor", [0.5, 5.0])
def test_the_default_bounds_of_seq_mask_tis(factor: float) -> None:
    for k, kept in ((factor * 0.99, factor > 1), (factor * 1.01, factor < 1)):
        found = weight_of("seq_mask_tis", *batch_of(torch.full((2, 3), k, dtype=torch.float64)))
        assert bool(found.any()) == kept


def loss_of(batch: LossBatch, logp: Tensor, name: str, **fields: Any) -> float:
    corrections = [(name, build("correction", name, **fields))]
    objective = Objective(Plain(), corrections=corrections)
    policy = PolicyTerms(logp=logp, entropy=torch.zeros_like(logp))
    terms = objective.output(policy, batch, torch.ones(len(logp)).bool()).terms
    return float(objective.reduce(terms, objective.counts(terms)))


def test_the_denominator_shrinks_with_geo_mask_and_not_with_seq_mask_tis() -> None:
    """Weights of 1 on the kept response of 3 tokens, 5 tokens in all: the losses differ by 5/3."""
    k = tensor([2, 2, 2], [1, 1, 1])
    logp, batch = batch_of(k)
    bounds = {"is_min": 0.9, "is_max": 1.1}
    alone = -((batch.advantage + 0.5) * logp)[1].sum().item()
    assert loss_of(batch, logp, "geo_mask", **bounds) == pytest.approx(alone / 3)
    assert loss_of(batch, logp, "seq_mask_tis", **bounds) == pytest.approx(alone / 5)


@pytest.mark.parametrize("name", ["geo_mask", "seq_mask_tis"])
def test_demonstrations_stay_and_bounds_are_ordered(name: str) -> None:
    logp, batch = batch_of(K, expert=torch.tensor([True, False]))
    out = apply(build("correction", name, is_min=1.1, is_max=1.2), logp, batch)
    assert out.weight[0, :2].tolist() == [1, 1] and not (out.weight * out.batch.mask)[1].any()
    with pytest.raises(UserError, match="must not exceed"):
        build("correction", name, is_min=2.0, is_max=1.5)


# ---- by how far the policy has moved


def moved(advantage: Tensor, **fields: Any) -> tuple[Tensor, LossBatch]:
    """prox / behavior = e^0.18; pi / prox = e^-0.3 in the first response and 1 in the second."""
    k = torch.full((2, 3), math.exp(0.18), dtype=torch.float64)
    r = tensor([-0.3] * 3, [0] * 3).exp()
    return batch_of(k, r, advantage=advantage, **fields)


@pytest.mark.parametrize(
    ("fields", "out"),
    [
        ({"delta": 0.05}, True),
        ({"delta": 0.15}, False),
        ({"delta": 0.25, "reference": "prox"}, True),
        ({"delta": 0.35, "reference": "prox"}, False),
        ({}, True),
    ],
)
def test_opsm_leaves_out_negatives_the_policy_has_left(fields: dict[str, Any], out: bool) -> None:
    """mean log(behavior / pi) = 0.12 and mean log(prox / pi) = 0.3 in the first response."""
    logp, batch = moved(-torch.ones(2, 3).double())
    expected = [[0.0] * 3 if out else ONES[0], ONES[1]]
    assert weight_of("opsm", logp, batch, **fields).tolist() == expected


def test_opsm_never_masks_what_is_not_negative() -> None:
    """By token: only the negative ones of a response that has been left."""
    logp, batch = moved(tensor([1, -1, 0], [0, -1, 1]))
    batch = replace(batch, mask=torch.ones(2, 3).bool())
    found = weight_of("opsm", logp, batch, delta=0.0)
    assert found.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_opsm_reads_what_it_is_set_to() -> None:
    for reference in ("behavior", "prox"):
        part = build("correction", "opsm", reference=reference, delta=0.01)
        assert part.needs == {reference}
        check_correction(part)


def test_opsm_keeps_demonstrations_unless_it_looks_at_prox() -> None:
    expert = torch.tensor([True, False])
    logp, batch = moved(-torch.ones(2, 3).double(), expert=expert)
    assert weight_of("opsm", logp, batch, delta=0.0)[0].tolist() == [1, 1, 0]
    found = weight_of("opsm", logp, batch, delta=0.0, reference="prox")
    assert found[0].tolist() == [0, 0, 0]


def probabilities(
    p: list[float], q: list[float], advantage: list[float]
) -> tuple[Tensor, LossBatch]:
    """The second response has these probabilities under the policy and the behaviour policy."""
    batch = batch_of(torch.ones(2, 3, dtype=torch.float64))[1]
    policy = torch.stack([batch.behavior_logp[0], tensor(p)[0].log()])
    behavior = torch.stack([batch.behavior_logp[0], tensor(q)[0].log()])
    return policy, replace(batch, behavior_logp=behavior, advantage=tensor([1.0] * 3, advantage))


@pytest.mark.parametrize(
    ("p", "q", "advantage", "expected"),
    [
        ([0.6, 0.6, 0.6], [0.35, 0.45, 0.9], [1, 1, 1], [0, 1, 1]),
        ([0.3, 0.3, 0.3], [0.45, 0.35, 0.1], [-1, -1, -1], [0, 1, 1]),
        ([0.3, 0.6, 0.3], [0.45, 0.35, 0.45], [0, 0, 1], [0, 1, 1]),
        ([1e-3, 1e-3, 0.9], [1e-6, 1e-1, 0.6], [1, -1, 1], [1, 1, 0]),
    ],
)
def test_dppo_bounds_the_difference_of_probabilities(
    p: list[float], q: list[float], advantage: list[float], expected: list[float]
) -> None:
    """delta_high 0.2, delta_low 0.1. The last row: a rare token may grow a thousandfold."""
    logp, batch = probabilities(p, q, advantage)
    found = weight_of("dppo_mask", logp, batch, delta_low=0.1, delta_high=0.2)
    assert found.tolist() == [ONES[0], expected]


def test_dppo_bounds_the_binary_divergence() -> None:
    """KL((q, 1 - q) || (p, 1 - p)) = 0.5 log(0.5 / 0.7) + 0.5 log(0.5 / 0.3) = 0.0872 both ways
    round 1/2.
    """
    kl = 0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.3)
    for advantage, p, field in ((1.0, 0.7, "delta_high"), (-1.0, 0.3, "delta_low")):
        logp, batch = probabilities([p, 1 - p, p], [0.5] * 3, [advantage] * 3)
        other = {"delta_high": "delta_low", "delta_low": "delta_high"}[field]
        for delta, kept in ((kl * 0.99, 0.0), (kl * 1.01, 1.0)):
            fields = {"divergence": "kl", field: delta, other: 10.0 if kept == 0 else 1e-6}
            found = weight_of("dppo_mask", logp, batch, **fields)
            assert found[1].tolist() == [kept, 1, kept], (field, delta)


@pytest.mark.parametrize("divergence", ["tv", "kl"])
def test_dppo_keeps_demonstrations_and_the_contract(divergence: str) -> None:
    logp, batch = probabilities([0.9] * 3, [0.1] * 3, [1] * 3)
    shown = replace(batch, expert=torch.tensor([False, True]))
    assert weight_of("dppo_mask", logp, batch, divergence=divergence)[1].sum() == 0
    assert weight_of("dppo_mask", logp, shown, divergence=divergence)[1].sum() == 3
    check_correction(build("correction", "dppo_mask", divergence=divergence))


# ---- filters


def test_responses_cut_at_the_limit_leave_the_mask() -> None:
    logp, batch = batch_of(K, truncated=torch.tensor([False, True]))
    out = apply(build("correction", "overlong_filter"), logp, batch)
    assert torch.equal(out.batch.mask, MASK & torch.tensor([[True], [False]]))
    assert out.weight.tolist() == [[1] * 3, [0] * 3]


def test_groups_without_an_advantage_leave_the_mask_whole() -> None:
    """Group 0 has one response with A != 0 and stays; in group 1 only a masked token has one."""
    logp, batch = examples(frozenset())
    advantage = torch.zeros_like(logp)
    advantage[3] = 1.0
    advantage[5, 5] = 1.0
    assert not batch.mask[5, 5]
    out = apply(
        build("correction", "zero_variance_filter"), logp, replace(batch, advantage=advantage)
    )
    assert torch.equal(out.batch.mask, batch.mask & (batch.group == 0)[:, None])
    assert out.weight[:, 0].tolist() == [1] * 4 + [0] * 4


# ---- entropy


@pytest.mark.parametrize("coef", [0.5, 2.0])
def test_the_bonus_raises_the_entropy(coef: float) -> None:
    """L falls by coef * mean H, so a step against the gradient raises H at valid tokens alone; the
    policy's term keeps its gradient.
    """
    logp, batch = batch_of(K)
    logits = logp.clone().requires_grad_()
    spread = torch.rand(2, 3, dtype=torch.float64)
    entropy = spread.clone().requires_grad_()
    corrections = [("entropy_bonus", build("correction", "entropy_bonus", coef=coef))]

    def run(parts: list[Any]) -> tuple[Tensor, Tensor, Tensor]:
        objective = Objective(Plain(), corrections=parts)
        policy = PolicyTerms(logp=logits, entropy=entropy)
        terms = objective.output(policy, batch, torch.ones(2).bool()).terms
        value = objective.reduce(terms, objective.counts(terms))
        a, b = torch.autograd.grad(value, (logits, entropy), materialize_grads=True)
        return value.detach(), a, b

    (plain, d_logp, _), (found, d_logp_too, d_entropy) = run([]), run(corrections)
    assert float(found - plain) == pytest.approx(-coef * float(spread[MASK].mean()))
    assert torch.equal(d_logp, d_logp_too)
    torch.testing.assert_close(d_entropy, torch.where(MASK, -coef / 5, 0.0).double())


def test_the_bonus_has_entropy_computed_with_its_gradient() -> None:
    assert build("correction", "entropy_bonus").needs == {"entropy"}
