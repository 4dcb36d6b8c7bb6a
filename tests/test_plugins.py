"""Where parts come from: files and modules of a user, the packages beside rlkit."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

import pytest

from rlkit import plugins
from rlkit.batch import LossBatch, LossOutput, PolicyTerms
from rlkit.errors import UserError
from rlkit.interfaces import PartConfig, PolicyLoss, Reward
from rlkit.plugins import (
    INTERFACES,
    KINDS,
    LIST_KINDS,
    OPTIONAL_KINDS,
    SINGLE_KINDS,
    _part_package,
    check_class,
    import_plugin,
    interface,
    mistakes_of,
)
from rlkit.registry import entry, names
from tests.cli import ROOT


def test_a_mistake_that_no_line_of_the_users_leads_to_stays_as_it_is() -> None:
    """It is rlkit's, or that of a package, and needs its traceback."""
    code = compile("with mistakes_of('loss own'):\n    {}['nothing']", "<not a file>", "exec")
    with pytest.raises(KeyError):
        exec(code, {"mistakes_of": mistakes_of})


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_file_named_like_a_part_package_is_not_imported_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "buffers.py").write_text("raise RuntimeError('not this one')\n")
    told = "import rlkit; rlkit.names('buffer'); import buffers.fifo; print(buffers.fifo.__file__)"
    result = python(told, tmp_path, ROOT)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()) == ROOT / "buffers" / "fifo.py"


def test_a_folder_named_like_a_part_package_is_not_imported_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "buffers").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "buffers")
    assert _part_package("buffers").__file__ == str(ROOT / "buffers" / "__init__.py")


@pytest.mark.parametrize("namespace", [True, False])
def test_what_was_imported_before_is_named_in_one_line(
    namespace: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "buffers").mkdir()
    if not namespace:
        (tmp_path / "buffers" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "buffers", other(tmp_path))
    with pytest.raises(
        UserError, match=f"'buffers' of rlkit is shadowed: {tmp_path / 'buffers'}"
    ) as found:
        _part_package("buffers")
    assert isinstance(found.value, ImportError)


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "HOME", tmp_path)
    monkeypatch.delitem(sys.modules, "buffers", raising=False)
    missing = f"'buffers' of rlkit is missing: there is no {tmp_path / 'buffers'}"
    with pytest.raises(ImportError, match=missing) as found:
        _part_package("buffers")
    assert isinstance(found.value, UserError)


def other(folder: Path) -> ModuleType:
    """The package `buffers` of a folder."""
    spec = PathFinder.find_spec("buffers", [str(folder)])
    assert spec is not None
    return importlib.util.module_from_spec(spec)


@pytest.fixture(autouse=True)
def _own(own_registry: None) -> None:
    """Modules that a test imports are gone after it."""


def test_a_file_is_imported_once(tmp_path: Path) -> None:
    path = tmp_path / "plugin_once.py"
    path.write_text("import itertools\nnumber = object()\n")
    first = import_plugin(str(path))
    assert import_plugin(str(path)) is first
    assert first.__name__ == "rlkit_plugin_plugin_once"


def test_a_file_beside_the_command_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_here.py").write_text("value = 5\n")
    monkeypatch.chdir(tmp_path)
    assert import_plugin("./plugin_here.py").value == 5


def test_a_module_in_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rlkit_plugin_by_name.py").write_text("value = 6\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert import_plugin("rlkit_plugin_by_name").value == 6


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "plugin_same.py").write_text("")
    import_plugin(str(tmp_path / "a" / "plugin_same.py"))
    with pytest.raises(UserError, match=r"two plugin files are called plugin_same.py: .*a/plugin_"):
        import_plugin(str(tmp_path / "b" / "plugin_same.py"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\nraise KeyError('gone')\n", "KeyError: 'gone' (plugin_bad.py, line 2);"),
        ("def f():\n    1 / 0\n\n\nf()\n", "division by zero (plugin_bad.py, line 5);"),
        ("x =\n", "SyntaxError: invalid syntax (plugin_bad.py, line 1); RLKIT_DEBUG=1"),
        ("import no_such_package_of_mine\n", "No module named 'no_such_package_of_mine'"),
    ],
)
def test_a_file_that_fails_is_told_with_its_line_and_can_be_tried_again(
    tmp_path: Path, source: str, said: str
) -> None:
    path = tmp_path / "plugin_bad.py"
    path.write_text(source)
    with pytest.raises(UserError) as caught:
        import_plugin(str(path))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    path.write_text("value = 7\n")
    assert import_plugin(str(path)).value == 7


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "./file.py:Class or package.module:Class"),
        ("no_such_package.part", "no module named 'no_such_package' here"),
        ("./no_such.py", "plugin file ./no_such.py does not exist"),
    ],
)
def test_a_plugin_that_is_not_there_is_told_in_the_users_words(name: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        import_plugin(name)
    assert said in str(caught.value)


def test_every_kind_has_one_part_or_a_list_of_them() -> None:
    assert sorted(SINGLE_KINDS + OPTIONAL_KINDS + LIST_KINDS) == sorted(KINDS)


class Scores(Reward):
    """A reward that lacks what every reward has."""


class Plain(PolicyLoss[PartConfig]):  # type: ignore[type-var]
    """A loss whose settings are not those of a loss."""

    def __call__(self, policy: PolicyTerms, batch: LossBatch) -> LossOutput:
        raise AssertionError


@pytest.mark.parametrize(
    ("kind", "thing", "shown", "said"),
    [
        ("loss", Scores, "./a.py:S", "./a.py:S is a reward, not a loss: write reward=[./a.py:S]"),
        ("reward", Plain, "./a.py:P", "./a.py:P is a loss, not a reward: write loss=./a.py:P"),
        ("anchor", Plain, "anchor 'x'", "anchor 'x' is a loss, not an anchor: register it as loss"),
        ("loss", len, "loss 'x'", "loss 'x' is not a part: a loss is a class that derives from"),
        ("task", Path, "task 'x'", "is not a part: a task is a class that derives from rlkit."),
        ("reward", Scores, "./a.py:S", "the class Scores has no __call__, which every reward"),
        ("loss", Plain, "./a.py:P", "PartConfig, the Config of Plain, must derive from LossConfig"),
    ],
)
def test_what_is_no_part_of_a_kind_is_told_what_it_is(
    kind: str, thing: object, shown: str, said: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_class(kind, thing, shown)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_every_kind_has_an_interface() -> None:
    assert tuple(INTERFACES) == KINDS
    for kind in KINDS:
        for name in names(kind):
            assert issubclass(entry(kind, name).cls, interface(kind)), name
