"""The reward `overlong`: DAPO's Eq. 13."""

from __future__ import annotations

import pytest

from rlkit.errors import UserError
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
