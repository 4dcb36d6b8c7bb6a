"""Shared fixtures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from rlkit import plugins, registry
from rlkit.models.policy import Policy
from tests.browser import Browser, started
from tests.tiny import make_policy

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all tests but those that ask for one: they repeat bit for bit, and fork."""
    if "gpu" not in config.getoption("markexpr").replace("not gpu", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that takes a browser."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.fixture
def policy() -> Policy:
    return make_policy()


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium with a fresh profile (tests/browser.py)."""
    with started(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry and a module table that forget the plug-ins of the test."""
    plugins.load_parts()  # what is first imported in a test would be forgotten with it
    modules = set(sys.modules)
    monkeypatch.setattr(registry, "_table", dict(registry._table))
    yield
    for name in set(sys.modules) - modules:
        if name.startswith("rlkit_plugin_"):
            plugins.forget_file(name)
