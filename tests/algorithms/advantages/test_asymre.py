"""The shifted baseline by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.algorithms.advantages.hand import REWARDS, estimate, one_a_row


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("asymre", {}, [0.1, -0.9, -0.9, 2.1]),
        ("asymre", {"baseline_shift": 0.5}, [-0.5, -1.5, -1.5, 1.5]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert out.returns[:, 1].tolist() == REWARDS
