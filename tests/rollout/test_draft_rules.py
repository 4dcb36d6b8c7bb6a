"""How much of a draft is kept, by hand, and the distribution that the lenient rule gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlkit.rollout.draft_rules import (
    accepted_prefix,
    equal_prefix,
    lenient_distribution,
    total_variation,
)

P, Q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])


@pytest.mark.parametrize(
    ("drawn", "kept"), [([1, 2, 3], 3), ([1, 2, 4], 2), ([1, 9, 3], 1), ([9, 2, 3], 0)]
)
def test_the_prefix_of_equal_tokens(drawn: list[int], kept: int) -> None:
    assert equal_prefix(torch.tensor(drawn), torch.tensor([1, 2, 3])) == kept


def test_nothing_of_an_empty_draft_is_kept() -> None:
    assert equal_prefix(torch.tensor([]), torch.tensor([])) == 0


@pytest.mark.parametrize(
    ("uniform", "scale", "bias", "kept"),
    [
        ([0.9, 0.49, 0.1], 1.0, 0.0, 3),  # ratios 1, 1/2, 1/8: log U <= Delta
        ([0.9, 0.51, 0.1], 1.0, 0.0, 1),
        ([0.9, 0.49, 0.2], 1.0, 0.0, 2),
        ([0.99, 0.99, 0.2], 1.0, -math.log(2), 3),  # lenient: ratios 2, 1, 1/4
        ([0.6, 0.1, 0.1], 1.0, math.log(2), 0),  # strict: ratios 1/2, 1/4, 1/16
        ([0.9, 0.7, 0.35], 0.5, 0.0, 3),  # ratios 1, 0.707, 0.354
        ([0.9, 0.7, 0.36], 0.5, 0.0, 2),
        ([0.0, 0.0, 0.0], 1.0, 9.0, 3),  # log 0 is below any bound
    ],
)
def test_the_rule_of_acceptance(uniform: list[float], scale: float, bias: float, kept: int) -> None:
    stored = torch.tensor([0.25, 0.5, 0.8]).log()
    now = stored - torch.tensor([1.0, 2.0, 8.0]).log()
    found = accepted_prefix(now, stored, torch.tensor(uniform), scale=scale, bias=bias)
    assert found == kept


@pytest.mark.parametrize("gap", [1e4, -1e4])
def test_no_log_ratio_overflows(gap: float) -> None:
    stored = torch.zeros(1)
    assert accepted_prefix(stored + gap, stored, torch.tensor([0.5])) == int(gap > 0)


def test_what_follows_a_rejection_makes_even_the_plain_rule_inexact() -> None:
    """min(p, q) = .2, .3, .2; what is missing, .3, is drawn from p and not from (.3, 0, 0)/.3."""
    found = lenient_distribution(P, Q)
    torch.testing.assert_close(found, torch.tensor([0.35, 0.39, 0.26]).double())
    assert float(total_variation(found, P)) == pytest.approx(0.15)


def test_the_limits_of_the_lenient_rule() -> None:
    """Accepting all gives the draft's distribution, nothing the policy's, equal ones both."""
    torch.testing.assert_close(lenient_distribution(P, Q, bias=-20.0), Q.double())
    torch.testing.assert_close(lenient_distribution(P, Q, bias=40.0), P.double())
    torch.testing.assert_close(lenient_distribution(P, Q, scale=0.0), Q.double())
    torch.testing.assert_close(lenient_distribution(P, P), P.double())


def test_a_token_that_only_one_of_both_has() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.0, 0.5])
    torch.testing.assert_close(lenient_distribution(p, q), torch.tensor([0.75, 0.25, 0.0]).double())


def test_the_distribution_is_that_of_the_rule_itself() -> None:
    """On a grid of uniforms: a draft of Q, accepted or not, and a draw of P after a rejection."""
    grid = (torch.arange(200).double() + 0.5) / 200

    def share(token: int) -> Tensor:
        uniform = grid[:, None]
        kept = [
            accepted_prefix(P[token].log()[None], Q[token].log()[None], one, scale=0.7, bias=-0.1)
            for one in uniform
        ]
        return torch.tensor(kept).double().mean()

    accepted = torch.stack([share(token) for token in range(3)])
    expected = Q * accepted + (1 - (Q * accepted).sum()) * P
    found = lenient_distribution(P, Q, scale=0.7, bias=-0.1)
    torch.testing.assert_close(found, expected.double(), atol=0.005, rtol=0)


def test_total_variation_by_hand() -> None:
    assert float(total_variation(P, Q)) == pytest.approx(0.3)
