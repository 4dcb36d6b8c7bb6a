"""GRPO's advantage by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.algorithms.advantages.hand import REWARDS, STD, estimate, one_a_row


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("group_norm", {}, [0, -1 / STD, -1 / STD, 2 / STD]),
        ("group_norm", {"unbiased": False}, [0, -1 / 1.5**0.5, -1 / 1.5**0.5, 2 / 1.5**0.5]),
        ("group_norm", {"eps": 1.0}, [0, -1 / (STD + 1), -1 / (STD + 1), 2 / (STD + 1)]),
        ("group_norm", {"std": "none"}, [0, -1, -1, 2]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5)


def test_the_batch_std_is_over_every_reward() -> None:
    """Rewards 1 0 | 4 4: mean 2.25, squares 1.5625 + 5.0625 + 2 * 3.0625 = 12.75, over 3: 4.25."""
    out = estimate("group_norm", [1, 0, 4, 4], [0, 0, 1, 1], std="batch", eps=1e-12)
    scale = 4.25**0.5
    assert one_a_row(out) == pytest.approx([0.5 / scale, -0.5 / scale, 0, 0])
