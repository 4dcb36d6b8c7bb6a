"""Every registered schedule keeps the contract of its kind."""

from __future__ import annotations

import pytest

from rlkit.registry import build, names
from rlkit.testing import check_schedule


@pytest.mark.parametrize("name", names("schedule"))
def test_contract(name: str) -> None:
    check_schedule(build("schedule", name))
