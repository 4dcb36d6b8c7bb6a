"""Figures by hand."""

from __future__ import annotations

from math import sqrt

import pytest

from rlkit.errors import UserError
from rlkit.evaluation.figures import (
    Outcome,
    check_ks,
    figures,
    macro,
    pass_at_k,
    usual_ks,
    values_of,
)


def outcome(right: list[bool], classes: list[int | None] | None = None) -> Outcome:
    n = len(right)
    return Outcome(
        right=right,
        lengths=list(range(1, n + 1)),
        truncated=[i == 0 for i in range(n)],
        reflects=[i == 1 for i in range(n)],
        classes=classes,
    )


def test_pass_at_k_by_hand() -> None:
    """Of 4 samples 2 are right: of 6 pairs one has none, so 5/6; of 4 triples none, so 1."""
    assert [pass_at_k(4, 2, k) for k in (1, 2, 3, 4)] == pytest.approx([0.5, 5 / 6, 1, 1])
    assert pass_at_k(4, 0, 4) == 0.0


def test_the_values_of_two_problems() -> None:
    sampled = [
        outcome([True, False, True, False], [0, 1, 0, 2]),
        outcome([False] * 4, [0, 0, 1, None]),
    ]
    values = values_of(sampled, [outcome([True]), outcome([False])], (2, 4))
    assert values == {
        "pass@1": [0.5, 0.0],
        "pass@2": [pytest.approx(5 / 6), 0.0],
        "pass@4": [1.0, 0.0],
        "maj@2": [pytest.approx((1 + 4 * 0.5) / 6), 0.0],
        "maj@4": [1.0, 0.0],
        "greedy": [1.0, 0.0],
        "length": [2.5, 2.5],
        "truncated": [0.25, 0.25],
        "reflection": [0.25, 0.25],
    }
    found = figures(values)
    assert found["pass@1"].value == 0.25 and found["pass@1"].n == 2
    assert (found["pass@1"].low, found["pass@1"].high) == (0.0, 0.5)


def test_greedy_alone_and_answers_that_cannot_be_compared() -> None:
    greedy = [outcome([True]), outcome([False])]
    assert set(values_of([], greedy, (1,))) == {"greedy", "length", "truncated", "reflection"}
    assert "maj@2" not in values_of([outcome([True, False])], [], (1, 2))


def test_the_macro_average_weighs_benchmarks_not_problems() -> None:
    """Means 3/4 and 0: their mean 3/8, error sqrt(err^2 + 0) / 2 with err = s / sqrt(4) = 1/4."""
    suite = [{"pass@1": [1.0, 1.0, 1.0, 0.0], "greedy": [1.0] * 4}, {"pass@1": [0.0]}]
    found = macro(suite)
    assert set(found) == {"pass@1"}
    (average,) = found.values()
    assert (average.value, average.n) == (0.375, 2)
    assert average.error == pytest.approx(sqrt(0.25**2) / 2)
    assert 0.0 <= average.low < 0.375 < average.high <= 0.5


def test_benchmarks_are_drawn_within_themselves() -> None:
    """Both benchmarks have no spread: neither has their mean, however far they are apart."""
    (average,) = macro([{"pass@1": [1.0] * 5}, {"pass@1": [0.0] * 5}]).values()
    assert (average.low, average.value, average.high, average.error) == (0.5, 0.5, 0.5, 0.0)


def test_the_usual_ks() -> None:
    assert [usual_ks(n) for n in (1, 2, 6, 8)] == [(1,), (1, 2), (1, 2, 4, 6), (1, 2, 4, 8)]
    check_ks((1, 8), 8)
    with pytest.raises(UserError, match="--samples 8"):
        check_ks((1, 8), 4)
