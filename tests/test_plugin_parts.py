"""Plug-ins over several runs of one process, as in a notebook."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlkit.composition.describe import source_of
from rlkit.errors import UserError
from rlkit.plugin_parts import load_plugin
from rlkit.registry import build, by_module, entry, from_import_path, names, scoped

PART = """
from algorithms.ppo import PPO
from rlkit import register

@register("loss", "{name}")
class Mine(PPO):
    version = {version}
"""


def write(path: Path, version: int, name: str = "from_a_plugin") -> Path:
    path.write_text(PART.format(version=version, name=name))
    return path


def test_a_file_is_known_to_each_run_as_it_is_when_the_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions of one size in one second, which cached bytecode does not tell apart."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "plugged_file.py"
    for version in (1, 2):
        write(path, version)
        with scoped():
            load_plugin(str(path))
            assert build("loss", "from_a_plugin").version == version
            write(path, 7)  # while the run goes on
            load_plugin(str(path))
            cls = type(build("loss", f"{path}:Mine"))
            assert cls.version == version, "a run does not change on its way"
            assert f"version = {version}".encode() in source_of(cls), "what was executed"
        assert "from_a_plugin" not in names("loss")


def test_a_part_that_is_gone_from_a_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "plugged_renamed.py"
    for name in ("old_name", "new_name"):
        write(path, 1, name)
        with scoped():
            load_plugin(str(path))
            assert [n for n in names("loss") if n.endswith("_name")] == [name]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that can be imported by name, forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with scoped():
        yield write(tmp_path / "plugged_module.py", 1, "from_a_module")
    sys.modules.pop("plugged_module", None)
    by_module.pop("plugged_module", None)


def test_a_module_that_was_reloaded_between_two_runs_is_the_new_one(module: Path) -> None:
    with scoped():
        load_plugin("plugged_module")
    write(module, 2, "from_a_module")
    importlib.reload(sys.modules["plugged_module"])
    with scoped():
        load_plugin("plugged_module")
        assert build("loss", "from_a_module").version == 2


def test_what_a_file_imports_is_registered_with_it_in_every_run(
    module: Path, tmp_path: Path
) -> None:
    front = tmp_path / "plugged_front.py"
    front.write_text("import plugged_module\n" + PART.format(name="from_the_front", version=1))
    for _ in range(2):
        with scoped():
            load_plugin(str(front))
            assert {"from_the_front", "from_a_module"} <= {*names("loss")}


def test_a_part_that_was_first_named_by_its_class_keeps_its_name(module: Path) -> None:
    for _ in range(2):
        with scoped():
            assert from_import_path("loss", "plugged_module:Mine").name == "from_a_module"
        with scoped():
            load_plugin("plugged_module")
            assert from_import_path("loss", "plugged_module:Mine").name == "from_a_module"


def test_a_module_of_a_package_registers_its_parts_in_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import system executes it once, whatever is registered."""
    folder = tmp_path / "plugged_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from plugged_package import losses\n")
    write(folder / "losses.py", 1, "from_a_package")
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(2):
        with scoped():
            load_plugin("plugged_package")
            assert entry("loss", "from_a_package").cls.version == 1
    with scoped():
        load_plugin(str(write(tmp_path / "plugged_twice.py", 1, "from_a_package")))
        with pytest.raises(UserError, match="two parts are called loss 'from_a_package'"):
            load_plugin("plugged_package")
    for name in ("plugged_package", "plugged_package.losses"):
        del sys.modules[name]
        by_module.pop(name, None)
