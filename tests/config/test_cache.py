"""Where the cache is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlkit.config.cache import cache_home


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLKIT_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_home() == Path("/a")
    monkeypatch.setenv("RLKIT_CACHE", "")
    assert cache_home() == Path("/b/rlkit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_home() == Path.home() / ".cache" / "rlkit"
