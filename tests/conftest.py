"""Shared fixtures."""

from __future__ import annotations

import pytest

from rlkit.policy import Policy
from tests.tiny import make_policy


@pytest.fixture
def policy() -> Policy:
    return make_policy()
