"""The lead of the best response by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rlkit.registry import build
from tests.algorithms.advantages.hand import (
    BIASED,
    REWARDS,
    STD,
    batch_of,
    estimate,
    lengths,
    one_a_row,
)


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("grpo_passk", {}, [0, 0, 0, 2 / STD]),
        ("grpo_passk", {"std": False}, [0, 0, 0, 2]),
        ("grpo_passk", {"unbiased": False}, [0, 0, 0, 2 / BIASED]),
        ("grpo_passk", {"eps": 1.0}, [0, 0, 0, 2 / (STD + 1)]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert out.returns[:, 1].tolist() == REWARDS


def test_shared_first_places_lead_nobody() -> None:
    assert one_a_row(estimate("grpo_passk", [3, 3, 0], [0, 0, 0])) == [0, 0, 0]


def test_the_score_of_an_empty_response_is_zero_for_the_lead() -> None:
    """The best response is 3 better than an empty one whatever reward stands beside that."""
    b = replace(batch_of([3.0, 2.0], [0, 0]), mask=lengths([2, 0]))
    found = build("advantage", "grpo_passk", std=False)(b).advantage
    assert found.tolist() == [[3, 3], [0, 0]]
