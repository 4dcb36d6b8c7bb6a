"""Fixtures of the judge's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rewards.judge.stub import Stub, serving


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """A judge in this process, whose answers are kept in the test's folder."""
    monkeypatch.setenv("RLKIT_CACHE", str(tmp_path / "cache"))
    with serving() as found:
        yield found
