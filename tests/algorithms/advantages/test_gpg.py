"""GPG's rescaling by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.algorithms.advantages.hand import REWARDS, estimate, one_a_row


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("gpg", {}, [0, -2, -2, 4]),
        ("gpg", {"f_norm": 4.0}, [0, -0.5, -0.5, 1]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert out.returns[:, 1].tolist() == REWARDS


def test_gpg_makes_up_for_responses_without_a_score() -> None:
    """Three of four rewards 0: alpha 4, and 1 if none is."""
    assert one_a_row(estimate("gpg", [1, 0, 0, 0], [0] * 4)) == pytest.approx([3, -1, -1, -1])
    assert one_a_row(estimate("gpg", [2, 1], [0, 0])) == pytest.approx([0.5, -0.5])
    assert one_a_row(estimate("gpg", [0, 0], [0, 0])) == [0, 0]
