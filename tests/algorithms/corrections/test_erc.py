"""The two guards after experience replayable conditions, by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit.batch import LossBatch
from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.testing import check_correction
from rlkit.testing.corrections import through_the_loss
from tests.algorithms.corrections.hand import MASK, apply, batch_of, weight_of

WHOLE = [torch.arange(2)]


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# ---- counteraction

HALF = torch.full((2, 3), 0.5, dtype=torch.float64)
K = tensor([0.5, 4.0, 9.0], [1.5, 3.0, 1.0])
"""With pi / prox = 1/2, pi / behavior is [0.25, 2, masked] and [0.75, 1.5, 0.5]."""


def negatives(**fields: Any) -> tuple[Tensor, LossBatch]:
    """Every token but the last is negative."""
    return batch_of(K, HALF, advantage=tensor([-1, -1, -1], [-1, -1, 1]), **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [[0.25, 1, 0], [0.75, 1, 1]]),
        ({"form": "drop"}, [[0, 1, 0], [0, 1, 1]]),
        ({"form": "drop", "eps": 0.3}, [[0, 1, 0], [1, 1, 1]]),
        ({"form": "drop", "eps": 0.0}, [[0, 1, 0], [0, 1, 1]]),
    ],
)
def test_negative_tokens_that_the_policy_has_left_lose_weight(
    fields: dict[str, Any], expected: list[list[float]]
) -> None:
    """r is pi over the policy that sampled, not over the one at the start of the step."""
    found = weight_of("erc_counteraction", *negatives(), **fields)
    torch.testing.assert_close(found, tensor(*expected))


@pytest.mark.parametrize(("r", "kept"), [(0.79, 0.0), (0.81, 1.0)])
def test_a_token_is_dropped_below_one_minus_a_fifth_by_default(r: float, kept: float) -> None:
    logp, batch = batch_of(torch.full((2, 3), r).double(), advantage=-torch.ones(2, 3).double())
    assert weight_of("erc_counteraction", logp, batch, form="drop")[1].tolist() == [kept] * 3


@pytest.mark.parametrize("form", ["weigh", "drop"])
def test_tokens_without_an_advantage_and_demonstrations_keep_weight_one(form: str) -> None:
    """Zero is not negative; a demonstration has no behavior policy to be compared with."""
    ones = MASK.double().tolist()
    logp, batch = negatives()
    flat = replace(batch, advantage=torch.zeros(2, 3).double())
    assert weight_of("erc_counteraction", logp, flat, form=form).tolist() == ones
    shown = replace(batch, expert=torch.tensor([True, True]))
    assert weight_of("erc_counteraction", logp, shown, form=form).tolist() == ones


def test_the_gradient_is_weighed_over_all_five_tokens() -> None:
    """The tried loss is -(A + 1/2) log pi: its gradient is that times w / 5, for w is constant."""
    logp, batch = negatives()
    _, found, _ = through_the_loss(build("correction", "erc_counteraction"), logp, batch, WHOLE)
    weight = tensor([0.25, 1, 0], [0.75, 1, 1])
    torch.testing.assert_close(found, -(batch.advantage + 0.5) * weight / 5)


def test_the_form_that_drops_keeps_the_contract() -> None:
    """The kit tries the default form of every correction."""
    check_correction(build("correction", "erc_counteraction", form="drop"))


def test_all_of_the_probability_cannot_be_allowed_to_go() -> None:
    """eps = 1 would drop nothing, in silence."""
    with pytest.raises(UserError, match=r"correction\.eps"):
        build("correction", "erc_counteraction", form="drop", eps=1.0)


# ---- mining


def far(*logs: list[float], replayed: list[int], **fields: Any) -> tuple[Tensor, LossBatch]:
    """log(pi / behavior) of two responses; half of it is log(pi / prox). Fresh ones are old."""
    half = (tensor(*logs) / 2).exp()
    stored = torch.tensor(replayed).bool()
    return batch_of(half, half, replayed=stored, age=(~stored).long(), **fields)


def kept(logp: Tensor, batch: LossBatch, **fields: Any) -> list[bool]:
    """Which responses stay; those that leave have weight 0 and no token in the mask."""
    out = apply(build("correction", "erc_mining", **fields), logp, batch)
    rows = out.batch.mask.any(-1)
    assert torch.equal(out.batch.mask, batch.mask & rows[:, None])
    assert torch.equal(out.weight, rows[:, None].double().expand(2, 3))
    return rows.tolist()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("m", "stays"), [(0.19, False), (0.21, True)])
def test_a_replayed_response_leaves_if_its_mean_log_ratio_is_out_of_bounds(
    sign: float, m: float, stays: bool
) -> None:
    """Means of 0.2 over two tokens and over three; the third of the first response is masked."""
    logs = [[sign * x for x in row] for row in ([0.1, 0.3, 9.0], [0.5, 0.2, -0.1])]
    assert kept(*far(*logs, replayed=[1, 1]), m=m) == [stays, stays]


def test_what_cancels_out_within_a_response_stays() -> None:
    assert kept(*far([0.4, -0.4, 9.0], [2.0, -1.0, -1.0], replayed=[1, 1]), m=0.01) == [True, True]


def test_fresh_responses_and_demonstrations_stay() -> None:
    logs = ([3.0, 3.0, 3.0], [3.0, 3.0, 3.0])
    assert kept(*far(*logs, replayed=[0, 1])) == [True, False]
    assert kept(*far(*logs, replayed=[1, 1], expert=torch.tensor([False, True]))) == [False, True]


@pytest.mark.parametrize(("mean", "stays"), [(0.099, True), (0.101, False)])
def test_the_default_bound_is_a_tenth(mean: float, stays: bool) -> None:
    assert kept(*far([mean] * 3, [mean] * 3, replayed=[1, 1])) == [stays, stays]


def test_the_denominator_shrinks_with_the_mask() -> None:
    """Two of the five tokens leave: the gradient of the others is divided by 3."""
    logp, batch = far([3.0] * 3, [0.0] * 3, replayed=[1, 1])
    _, found, _ = through_the_loss(build("correction", "erc_mining"), logp, batch, WHOLE)
    stay = torch.tensor([[False], [True]]).expand(2, 3)
    torch.testing.assert_close(found, torch.where(stay, -(batch.advantage + 0.5) / 3, 0.0))


@pytest.mark.parametrize("m", [0.0, 0.05, 0.2])
def test_every_bound_keeps_the_contract(m: float) -> None:
    """Above all that the counts are those of the whole minibatch, whatever the micro-batches."""
    check_correction(build("correction", "erc_mining", m=m))
