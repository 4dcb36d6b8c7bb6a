"""The leave-one-out baseline by hand."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch

from tests.algorithms.advantages.hand import REWARDS, estimate, one_a_row

LOO_STD = (96 / 27) ** 0.5 + 1e-4  # of 0, -4/3, -4/3, 8/3, with its eps


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("rloo", {}, [0, -4 / 3, -4 / 3, 8 / 3]),
        ("rloo", {"normalize": True}, [0, -4 / 3 / LOO_STD, -4 / 3 / LOO_STD, 8 / 3 / LOO_STD]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert out.returns[:, 1].tolist() == REWARDS


def test_normalized_leave_one_out_is_centred_over_the_batch() -> None:
    """A lonely response keeps its reward 5 and shifts the batch: 1, -1, 5 have mean 5/3."""
    found = one_a_row(estimate("rloo", [1, 0, 5], [0, 0, 1], normalize=True))
    assert found == pytest.approx(
        [(a - 5 / 3) / (statistics.stdev([1, -1, 5]) + 1e-4) for a in (1, -1, 5)]
    )


def test_leave_one_out_is_the_centred_reward_times_n_over_n_minus_one() -> None:
    loo, centred = (estimate(n, REWARDS, [0] * 4) for n in ("rloo", "group_mean"))
    torch.testing.assert_close(loo.advantage, 4 / 3 * centred.advantage)
