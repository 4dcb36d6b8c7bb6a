"""The scaled reward by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.algorithms.advantages.hand import REWARDS, estimate, one_a_row


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("reward", {}, [1, -1, -1, 5]),
        ("reward", {"scale": 0.5, "shift": 0.25}, [0.75, 0.25, 0.25, 1.75]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5)


def test_wrong_answers_are_pushed_down_by_the_reward_advantage() -> None:
    assert one_a_row(estimate("reward", [0, 1], [0, 1])) == [-1, 1]
