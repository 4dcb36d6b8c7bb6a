"""Shared fixtures."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from rlkit import plugins, registry
from rlkit.models.policy import Policy
from tests.tiny import make_policy

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def policy() -> Policy:
    return make_policy()


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry and a module table that forget the plug-ins of the test."""
    plugins.load_parts()  # what is first imported in a test would be forgotten with it
    modules = set(sys.modules)
    monkeypatch.setattr(registry, "_table", dict(registry._table))
    yield
    for name in set(sys.modules) - modules:
        if name.startswith("rlkit_plugin_"):
            del sys.modules[name]
