"""Normalization over the batch by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.algorithms.advantages.hand import BIASED, REWARDS, STD, estimate, one_a_row


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("batch_norm", {}, [0, -1 / STD, -1 / STD, 2 / STD]),
        ("batch_norm", {"unbiased": False}, [0, -1 / BIASED, -1 / BIASED, 2 / BIASED]),
        ("batch_norm", {"eps": 1.0}, [0, -1 / (STD + 1), -1 / (STD + 1), 2 / (STD + 1)]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert out.returns[:, 1].tolist() == REWARDS


def test_the_batch_norm_knows_no_groups() -> None:
    one, many = (one_a_row(estimate("batch_norm", REWARDS, g)) for g in ([0] * 4, [0, 1, 2, 3]))
    assert one == many
