"""PSR and NSR by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.algorithms.advantages.hand import REWARDS, estimate, one_a_row


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("psr_nsr", {}, [0.1, -1, -1, 0.1]),
        ("psr_nsr", {"positive_weight": 1.0, "negative_weight": 0.0}, [1, 0, 0, 1]),
        ("psr_nsr", {"positive_weight": 0.0, "negative_weight": 0.5}, [0, -0.5, -0.5, 0]),
        ("psr_nsr", {"threshold": 1.0}, [-1, -1, -1, 0.1]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert out.returns[:, 1].tolist() == REWARDS
