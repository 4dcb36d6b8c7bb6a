"""maj@k by hand, and against every subset."""

from __future__ import annotations

from itertools import combinations
from statistics import mean

import pytest

from rlkit.evaluation import votes
from rlkit.evaluation.votes import Ballot, majority


def over_subsets(ballot: Ballot, k: int) -> float:
    """The definition: every subset, its most frequent answers, their mean mark."""
    voters = [g for g, count in enumerate(ballot.counts) for _ in range(count)]
    found = []
    for subset in combinations([*voters, *[None] * ballot.silent], k):
        counts = [subset.count(g) for g in range(len(ballot.counts))]
        best = max(counts, default=0)
        winners = [r for c, r in zip(counts, ballot.right, strict=True) if c == best]
        found.append(mean(winners) if best else 0.0)
    return mean(found)


def test_by_hand() -> None:
    """Samples R R W -: pairs RR, R-, R- count 1, RW, RW 1/2, W- 0; triples 1, 1, 1/2, 1/2."""
    ballot = Ballot.of([0, 0, 1, None], [True, True, False, False])
    assert (ballot.counts, ballot.right, ballot.silent) == ((2, 1), (1.0, 0.0), 1)
    assert [majority(ballot, k) for k in (1, 2, 3, 4)] == pytest.approx([1 / 2, 4 / 6, 3 / 4, 1])


def test_a_tie_counts_with_its_expected_value_and_silence_nothing() -> None:
    assert majority(Ballot.of([0, 1, 2], [False, True, False]), 3) == pytest.approx(1 / 3)
    assert majority(Ballot.of([None, None], [False, False]), 2) == 0.0
    assert majority(Ballot.of([None, None], [False, False]), 1) == 0.0


@pytest.mark.parametrize("counts", [(3,), (2, 2), (1, 2, 3), (1, 1, 1, 1), (4, 2, 1)])
@pytest.mark.parametrize("silent", [0, 2])
def test_every_subset_counts_once(counts: tuple[int, ...], silent: int) -> None:
    right = tuple(float(g % 2 == 0) for g in range(len(counts)))
    ballot = Ballot(counts=counts, right=right, silent=silent)
    for k in range(1, ballot.samples + 1):
        assert majority(ballot, k) == pytest.approx(over_subsets(ballot, k), abs=1e-12)


def test_of_one_sample_the_majority_is_the_sample() -> None:
    """maj@1 is pass@1 if samples without an answer are wrong."""
    ballot = Ballot(counts=(5, 9, 2), right=(1.0, 0.0, 1.0), silent=4)
    assert majority(ballot, 1) == pytest.approx(7 / 20)


def test_a_class_with_both_marks_counts_with_its_share() -> None:
    assert Ballot.of([0, 0, 0, 0], [True, True, True, False]).right == (0.75,)


def test_drawn_subsets_estimate_the_same_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 subsets: the error of a mean of marks is at most 1/2 / sqrt(2000) = 0.011; 6 of it."""
    ballot = Ballot(counts=(6, 5, 3), right=(1.0, 0.0, 0.0), silent=2)
    wanted = majority(ballot, 5)
    monkeypatch.setattr(votes, "EXACT", 1)
    assert majority(ballot, 5, seed=3) == pytest.approx(wanted, abs=0.07)
    assert majority(ballot, 5, seed=3) == majority(ballot, 5, seed=3)
    assert 0 < majority(ballot, 5, seed=3) < 1


@pytest.mark.parametrize("k", [0, 3])
def test_k_is_one_of_the_samples(k: int) -> None:
    with pytest.raises(ValueError, match="samples"):
        majority(Ballot.of([0, 0], [True, True]), k)
