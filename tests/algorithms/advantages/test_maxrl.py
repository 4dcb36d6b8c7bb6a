"""MaxRL by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlkit.errors import UserError
from tests.algorithms.advantages.hand import REWARDS, estimate, one_a_row


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("maxrl", {}, [0, -1, -1, 2]),
        ("maxrl", {"eps": 1.0}, [0, -0.5, -0.5, 1]),
    ],
)
def test_one_group(name: str, fields: dict[str, Any], expected: list[float]) -> None:
    out = estimate(name, REWARDS, [7, 7, 7, 7], **fields)
    assert one_a_row(out) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert out.returns[:, 1].tolist() == REWARDS


def test_maxrl_does_not_depend_on_the_scale_of_the_rewards() -> None:
    """(R - mean) / mean; with 0/1 rewards a correct answer gets 1/p - 1, so rare ones more."""
    once, twice = (estimate("maxrl", [k * r for r in REWARDS], [0] * 4) for k in (1, 2))
    torch.testing.assert_close(once.advantage, twice.advantage, rtol=1e-5, atol=1e-12)
    assert one_a_row(estimate("maxrl", [1, 0, 0, 0], [0] * 4)) == pytest.approx(
        [3, -1, -1, -1], rel=1e-4
    )
    assert one_a_row(estimate("maxrl", [0, 0], [0, 0])) == [0, 0]


def test_negative_rewards_are_refused() -> None:
    """Of 1, -1, -1, -1 the mean is -0.5, by which the right answer would get -3."""
    with pytest.raises(UserError, match="a reward of -1; make every reward 0 or more"):
        estimate("maxrl", [1, -1, -1, -1], [0] * 4)
