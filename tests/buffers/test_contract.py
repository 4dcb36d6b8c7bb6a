"""Every registered buffer keeps the contract of its kind."""

from __future__ import annotations

import pytest

from rlkit.registry import build, names
from rlkit.testing import check_buffer


@pytest.mark.parametrize("name", names("buffer"))
def test_contract(name: str) -> None:
    check_buffer(build("buffer", name))


def test_other_settings_of_fifo_keep_the_contract() -> None:
    for fields in ({"window": 1}, {"replay_fraction": 0.9}, {"age_weights": [0.0, 1.0]}):
        check_buffer(build("buffer", "fifo", **fields))
