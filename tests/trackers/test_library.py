"""A tracker's library that is not installed is named; what it lacks itself is not hidden."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from rlkit.errors import UserError
from rlkit.registry import build
from rlkit.trackers.library import library


def test_what_is_installed_is_imported() -> None:
    assert library("json", "json") is importlib.import_module("json")


def test_a_missing_package_is_named() -> None:
    with pytest.raises(UserError, match=r"tracker=no_such needs .* pip install no-such$"):
        library("no_such", "no-such")


@pytest.mark.parametrize("tracker", ["mlflow", "trackio"])
def test_a_tracker_says_that_its_package_is_missing_before_it_starts(
    tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)  # as if it were not installed
    with pytest.raises(UserError, match=f"^tracker={tracker} needs .* pip install {tracker}$"):
        build("tracker", tracker).require()


def test_what_the_library_lacks_itself_is_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        library("half_installed", "half")
    assert "half_installed" not in sys.modules
