"""What buffers of whole groups share."""

from __future__ import annotations

import pytest

from rlkit.registry import build
from tests.buffers.test_replay import Cycle


@pytest.mark.parametrize("name", ["fifo", "prioritized", "value_decay"])
def test_the_share_is_that_of_the_config_and_the_groups_are_the_stored_ones(name: str) -> None:
    """8 - ceil(0.3 x 8) = 5 fresh groups of 8, also while the buffer is empty."""
    buffer = build("buffer", name, replay_fraction=0.3)
    assert buffer.fresh_share(8) == 5 and buffer.groups == []
    cycle = Cycle(buffer, 8)
    fresh = [group for step in (1, 2) for group in cycle.step(step)[0]]
    assert buffer.groups == fresh, "oldest first"
