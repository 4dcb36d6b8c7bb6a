"""The reward `overlong`: DAPO's Eq. 13."""

from __future__ import annotations

import pytest

from rlkit.errors import UserError
from rlkit.interfaces import RunContext
from rlkit.registry import build
from rlkit.rewards.overlong import Overlong, OverlongConfig, overlong_punishment


@pytest.mark.parametrize(
    ("length", "value"),
    [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (101, -1.0), (10_000, -1.0)],
)
def test_the_three_pieces_of_the_equation(length: int, value: float) -> None:
    assert overlong_punishment(length, max_length=100, buffer=20) == pytest.approx(value)


def test_a_buffer_as_long_as_the_limit_punishes_from_the_first_token() -> None:
    assert [overlong_punishment(n, max_length=4, buffer=4) for n in range(6)] == [
        0.0,
        -0.25,
        -0.5,
        -0.75,
        -1.0,
        -1.0,
    ]


def test_lengths_are_those_of_completion_ids_not_of_the_text() -> None:
    reward = Overlong(OverlongConfig(max_length=10, buffer=5))
    ids = [[1] * 5, [1] * 7, [1] * 12]
    assert reward(["p"] * 3, ["x" * 99, "", "x"], completion_ids=ids) == [0.0, -0.4, -1.0]


def test_a_buffer_longer_than_the_limit_is_refused() -> None:
    with pytest.raises(UserError, match="buffer=30 must not be larger than max_length=20"):
        build("reward", "overlong", max_length=20, buffer=30)


def opened(longest: int | None, **settings: int) -> Overlong:
    reward = Overlong(OverlongConfig(**settings))
    reward.open(RunContext(max_completion_length=longest))
    return reward


def test_the_lengths_are_the_runs_unless_they_are_set() -> None:
    """By default L is the run's and C a fifth of it, at least 1."""
    assert (opened(20480).max_length, opened(20480).buffer) == (20480, 4096)
    assert (opened(3).max_length, opened(3).buffer) == (3, 1)
    assert (opened(100, max_length=50, buffer=7).max_length, opened(100, buffer=7).buffer) == (
        50,
        7,
    )
    assert opened(100, max_length=50).buffer == 10


def test_a_length_below_the_runs_is_told_and_one_above_is_refused() -> None:
    assert opened(100).notes() == opened(100, max_length=100).notes() == ()
    (note,) = opened(100, max_length=99).notes()
    assert "max_length=99 gives -1" in note and "max_completion_length=100" in note
    with pytest.raises(UserError, match="max_length=101 is never reached"):
        opened(100, max_length=101)
    with pytest.raises(UserError, match=r"reward\.overlong\.buffer=20 must not be larger"):
        opened(10, buffer=20)


def test_outside_a_run_the_length_must_be_set() -> None:
    with pytest.raises(UserError, match="outside a run needs max_length"):
        opened(None)(["p"], [""], completion_ids=[[1]])
