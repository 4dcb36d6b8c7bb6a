"""Dr. GRPO's advantage by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.algorithms.advantages.hand import REWARDS, estimate, one_a_row


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("group_mean", {}, [0, -1, -1, 2]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5)
