"""The length-weighted baseline by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlkit.registry import build
from tests.algorithms.advantages.hand import REWARDS, batch_of, estimate, lengths, one_a_row


def test_opo_weighs_the_baseline_by_length() -> None:
    """Lengths 1, 2, 2, 1: (1 * 1 + 1 * 3) / 6 = 2/3. Equal lengths give the mean."""
    b = replace(batch_of(REWARDS, [0] * 4), mask=lengths([1, 2, 2, 1]))
    found = build("advantage", "opo")(b).advantage
    assert found[:, 0].tolist() == pytest.approx([1 / 3, -2 / 3, -2 / 3, 7 / 3])
    assert found[:, 1].tolist() == pytest.approx([0, -2 / 3, -2 / 3, 0])
    assert one_a_row(estimate("opo", REWARDS, [0] * 4)) == pytest.approx([0, -1, -1, 2])


def test_an_opo_group_of_empty_responses_is_finite() -> None:
    b = replace(batch_of(REWARDS, [0, 0, 1, 1]), mask=lengths([0, 0, 2, 2]))
    found = build("advantage", "opo")(b).advantage
    assert found[:2].tolist() == [[0, 0], [0, 0]] and found[3, 0] == 1.5
