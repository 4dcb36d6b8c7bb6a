"""Several accepted answers, and a tolerance of each row's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rlkit.evaluation.accepted import Accepted
from rlkit.rewards.math.reward import MathConfig


@pytest.fixture(scope="module")
def reward() -> Iterator[Accepted]:
    made = Accepted(MathConfig(workers=1))
    yield made
    made.close()


def test_any_accepted_answer_is_right_within_the_rows_tolerance(reward: Accepted) -> None:
    boxed = [rf"\boxed{{{text}}}" for text in ("1", "2", "3", "101", "101", r"4.5 \times 10^{33}")]
    accepted = [["1", "2"], ["1", "2"], ["1", "2"], ["100"], ["100"], ["4.52e33"]]
    tolerances = [0.0, 0.0, 0.0, 0.0, 0.01, 0.01]
    marks = reward(["?"] * 6, boxed, answer=["-"] * 6, accepted=accepted, tolerance=tolerances)
    assert marks == [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    assert reward.config.tolerance == 0.0


def test_a_row_of_a_file_has_its_answer_alone(reward: Accepted) -> None:
    assert reward(["?"] * 2, [r"\boxed{7}"] * 2, answer=["7", "8"]) == [1.0, 0.0]
    columns: dict[str, list[Any]] = {"answer": ["7", "8"], "tolerance": [None, 0.0]}
    columns["accepted"] = [None, ["7"]]
    assert reward(["?"] * 2, [r"\boxed{7}"] * 2, **columns) == [1.0, 1.0]
