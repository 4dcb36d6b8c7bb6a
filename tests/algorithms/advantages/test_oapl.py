"""OAPL's optimal value by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.algorithms.advantages.hand import LME, LME_HALF, REWARDS, estimate, one_a_row


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("oapl", {}, [1 - LME, -LME, -LME, 3 - LME]),
        ("oapl", {"beta1": 0.5}, [1 - LME_HALF, -LME_HALF, -LME_HALF, 3 - LME_HALF]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert out.returns[:, 1].tolist() == REWARDS
