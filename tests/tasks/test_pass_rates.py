"""What is known of each prompt's pass rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlkit.batch import Group
from rlkit.errors import UserError
from rlkit.ops import stream_rng
from rlkit.tasks.pass_rates import PassRates, evidence, known_rates
from tests.tasks.answers import group_of

IDS = ["p0", "p1", "p2"]
PLACES = {name: place for place, name in enumerate(IDS)}


def marks(group: Group) -> list[bool]:
    return [sample.reward == 1 for sample in group.samples]


def unknown(n: int = 3) -> np.ndarray:
    return np.full(n, np.nan)


def observed(rates: PassRates, **rewards: list[float]) -> None:
    groups = [group_of(name, each) for name, each in rewards.items()]
    rates.observe(groups, PLACES, marks)


def test_prior_counts() -> None:
    a, b = evidence(np.array([np.nan, 0.0, 0.25, 1.0]))
    assert a.tolist() == [1, 1, 2, 5] and b.tolist() == [1, 5, 4, 1]


def test_counts_add_up_and_are_forgotten_each_step() -> None:
    """Two steps by hand: a = 1 + 0.5 * 2 + 1 and b = 1 + 0.5 * 1 + 0 for p0."""
    rates = PassRates(IDS, unknown(), forget=0.5)
    observed(rates, p0=[1, 1, 0], p2=[0, 0])
    assert np.allclose(rates.mean, [3 / 5, 1 / 2, 1 / 4])
    observed(rates, p0=[1])
    assert np.allclose(rates.mean, [3 / 4.5, 1 / 2, 1 / 3])
    assert rates.streak.tolist() == [1, 0, 0] and rates.seen.tolist() == [True, False, True]
    for _ in range(60):
        observed(rates)
    assert np.allclose(rates.mean, 0.5), "what is long ago says nothing"


def test_a_streak_ends_with_one_wrong_response() -> None:
    rates = PassRates(IDS, unknown(), forget=0)
    for _ in range(3):
        observed(rates, p1=[1, 1])
    assert rates.streak.tolist() == [0, 3, 0]
    observed(rates, p1=[1, 0])
    assert rates.streak.tolist() == [0, 0, 0]


def test_groups_that_no_reward_applies_to_and_foreign_prompts_say_nothing() -> None:
    rates = PassRates(IDS, unknown(), forget=0)
    rates.observe([group_of("p0", [1.0])], PLACES, lambda group: [])
    rates.observe([group_of("other", [1.0])], PLACES, marks)
    assert not rates.seen.any() and not rates.streak.any()


def test_draws_follow_the_distribution() -> None:
    rates = PassRates(IDS, np.array([np.nan, 1.0, np.nan]), forget=0)
    observed(rates, p2=[0.0] * 2000)
    draws = np.array([rates.drawn(np.arange(3), stream_rng(0, "t", i)) for i in range(2000)])
    assert np.allclose(draws.mean(axis=0), [1 / 2, 5 / 6, 1 / 2002], atol=0.02)
    assert draws[:, 0].std() > 0.25, "unknown prompts are uniform"
    assert np.array_equal(rates.drawn(np.arange(3), stream_rng(0, "t", 4)), draws[4])


def test_the_state_is_that_of_the_prompts_seen_by_their_ids() -> None:
    rates = PassRates(IDS, unknown(), forget=0.1)
    observed(rates, p0=[1, 0], p2=[1, 1])
    state = rates.state_dict()
    assert state["ids"] == ["p0", "p2"]
    turned = PassRates(IDS[::-1], unknown(), forget=0.1)
    turned.load_state_dict(state, {name: place for place, name in enumerate(IDS[::-1])})
    for name in ("right", "wrong", "streak", "seen"):
        assert getattr(turned, name).tolist() == getattr(rates, name).tolist()[::-1]
    fewer = PassRates(["p2"], unknown(1), forget=0.1)
    fewer.load_state_dict(state, {"p2": 0})
    assert fewer.right.tolist() == [2.0] and fewer.streak.tolist() == [1]


def test_known_rates() -> None:
    rows: list[dict[str, Any]] = [{"rate": 0.5}, {}, {"rate": 1}]
    assert np.isnan(known_rates(rows, None)).all()
    assert np.array_equal(known_rates(rows, "rate"), [0.5, np.nan, 1], equal_nan=True)
    with pytest.raises(UserError, match="no row of the task has that column"):
        known_rates(rows, "rates")
    wrong: Any
    for wrong in (1.5, -0.1, "0.5", True):
        with pytest.raises(UserError, match=r"problem 1 of the train set has .* from 0 to 1"):
            known_rates([{"rate": 0.5}, {"rate": wrong}], "rate")
