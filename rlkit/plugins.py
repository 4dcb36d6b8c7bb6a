"""Where parts come from: the packages beside `rlkit`, entry points, a user's modules and files.

And the class that each kind of part derives from.

Configurations can import code: run only those you trust.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import sys
import sysconfig
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from traceback import extract_tb
from types import CodeType, ModuleType
from typing import Any

from rlkit.errors import UserError, known_names, suggest, with_article

INTERFACES = {
    "loss": "rlkit.interfaces:PolicyLoss",
    "correction": "rlkit.interfaces:Correction",
    "advantage": "rlkit.interfaces:AdvantageEstimator",
    "buffer": "rlkit.interfaces:ReplayBuffer",
    "anchor": "rlkit.interfaces:AnchorPolicy",
    "schedule": "rlkit.interfaces:ReincarnationSchedule",
    "reward": "rlkit.interfaces:Reward",
    "task": "rlkit.interfaces:Task",
    "rollout": "rlkit.rollout.base:RolloutEngine",
    "tracker": "rlkit.interfaces:Tracker",
    "environment": "rlkit.interfaces:Environment",
}
"""The class that every part of a kind derives from, imported when there is a part to check."""
KINDS = tuple(INTERFACES)
"""Kinds of parts; the registry has a table of each."""
SINGLE_KINDS = ("loss", "advantage", "buffer", "anchor", "schedule", "task", "rollout")
"""Kinds of which a run has exactly one part."""
OPTIONAL_KINDS = ("environment",)
"""Kinds of which a run has one part or none."""
SEVERAL = "several"
"""The name of a section that holds several parts of such a kind: {name: several, of: {...}}."""
LIST_KINDS = ("correction", "reward", "tracker")
"""Kinds of which a run has any number of parts."""
PART_PACKAGES = ("algorithms", "buffers", "anchors", "schedules")


FROM_FILE = "rlkit_plugin_"
"""How the names of modules imported from a file begin."""
SOURCES: dict[str, bytes] = {}
"""The contents of those files as they were executed, by module."""
HOME = Path(__file__).resolve().parent.parent
"""The folder of `rlkit` and of the packages of parts."""
NOT_USER_CODE = (
    "<",
    *(f"{HOME / name}{os.sep}" for name in ("rlkit", *PART_PACKAGES)),
    *(f"{sysconfig.get_path(key)}{os.sep}" for key in ("stdlib", "purelib", "platlib")),
)
"""How the names of files begin that a user did not write."""
MISTAKES = (AttributeError, KeyError, NameError, TypeError)
"""What a mistake in code raises. Anything else, such as memory that has run out, may be expected by
whoever made the call."""
CORE_PACKAGES = (
    "rlkit.rewards",
    "rlkit.tasks",
    "rlkit.rollout",
    "rlkit.trackers",
    "rlkit.environments",
)


def check_class(kind: str, thing: Any, shown: str) -> None:
    """Raise UserError for what cannot be a part of a kind; `shown` is what the user calls it."""
    part = interface(kind)
    if not (isinstance(thing, type) and issubclass(thing, part)):
        raise UserError(f"{shown} is {_in_place_of(kind, thing, shown)}")
    if missing := sorted(getattr(thing, "__abstractmethods__", ())):
        raise UserError(
            f"{shown}: the class {thing.__name__} has no {' and no '.join(missing)}, which every "
            f"{kind} defines: write it, as {INTERFACES[kind].replace(':', '.')} declares it"
        )
    cls: type[Any] = thing
    if not issubclass(cls.Config, part.Config):
        raise UserError(
            f"{shown}: {cls.Config.__name__}, the Config of {thing.__name__}, must derive from "
            f"{part.Config.__name__}, as the settings of every {kind} do"
        )


def unknown_name(group: str, name: str, known: list[str]) -> UserError:
    """The error for a name that a kind of parts, or another group of settings, does not have."""
    module, _, attribute = name.rpartition(".")
    if attribute == "py":
        module, attribute = name, "Class"
    own = f" A class of your own is given as {module}:{attribute}." if module else ""
    return UserError(
        f"there is no {group} called '{name}'.{own if group in KINDS else ''}"
        f"{suggest(name, known)} "
        f"{known_names(name, known, f'`rlkit list {group}`')}"
    )


def interface(kind: str) -> type[Any]:
    """The class that every part of a kind derives from."""
    module, _, name = INTERFACES[kind].partition(":")
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def _in_place_of(kind: str, thing: Any, shown: str) -> str:
    """What a thing is that is no part of a kind, and what to do instead."""
    for other in KINDS if isinstance(thing, type) else ():
        if issubclass(thing, interface(other)):
            named = f"[{shown}]" if other in LIST_KINDS else shown
            instead = f"write {other}={named}" if ":" in shown else f"register it as {other}"
            return f"{with_article(other)}, not {with_article(kind)}: {instead}"
    wanted = INTERFACES[kind].replace(":", ".")
    return f"not a part: {with_article(kind)} is a class that derives from {wanted}"


def import_plugin(name: str) -> ModuleType:
    """Import a user's module by dotted name or by file path.

    Raises UserError if it does not exist, or with the error and its line if the module fails.
    """
    try:
        return _import_file(name) if name.endswith(".py") else _import_module(name)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"plugin {name} cannot be imported: {type(error).__name__}: {error}{_place(error)}; "
            "RLKIT_DEBUG=1 shows the traceback"
        ) from error


def _place(error: Exception) -> str:
    """The line of a module that raised, " (file.py, line 3)"; a SyntaxError names its own."""
    frames = [frame for frame in extract_tb(error.__traceback__) if frame.name == "<module>"]
    if isinstance(error, SyntaxError) or not frames:
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def user_line(error: BaseException) -> str | None:
    """file:line of the innermost frame in the user's own code; None if there is none."""
    frames = extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(NOT_USER_CODE)]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None


@contextmanager
def mistakes_of(what: str) -> Generator[None]:
    """Tell a mistake in a part of the user's own, `what`, in one line with its place.

    Raises UserError. A mistake that no line of the user's leads to stays as it is.
    """
    try:
        yield
    except MISTAKES as error:
        place = user_line(error)
        if place is None:
            raise
        message = " ".join(str(error).split())[:300]
        raise UserError(
            f"{what} raised {type(error).__name__}: {message} ({place}); RLKIT_DEBUG=1 shows the "
            "traceback"
        ) from error


def _import_module(name: str) -> ModuleType:
    if not name:
        raise UserError("a part of your own is given as ./file.py:Class or package.module:Class")
    sys.path.insert(0, "") if "" not in sys.path else None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise UserError(
                f"plugin '{name}' cannot be imported: "
                f"no module named '{error.name}' here or in the environment"
            ) from None
        raise


def _import_file(name: str) -> ModuleType:
    path = Path(name).resolve()
    if not path.is_file():
        raise UserError(f"plugin file {name} does not exist")
    module_name = FROM_FILE + path.stem
    loaded = sys.modules.get(module_name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    if loaded is not None:
        raise UserError(
            f"two plugin files are called {path.name}: {loaded.__file__} and {path}; rename one"
        )
    loader = AsItIs(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    assert spec is not None and spec.loader is not None
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        forget_file(module_name)
        raise
    return module


class AsItIs(SourceFileLoader):
    """Executes what a file holds, whatever bytecode is cached, and keeps it in SOURCES."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file as it is now."""
        SOURCES[fullname] = self.get_data(self.path)
        code: CodeType = self.source_to_code(SOURCES[fullname], self.path)
        return code


def forget_file(module_name: str) -> None:
    """Have the file of a plug-in executed again when it is asked for next."""
    sys.modules.pop(module_name, None)
    SOURCES.pop(module_name, None)


@cache
def load_parts() -> None:
    """Import every built-in part and every installed plugin, once."""
    for package_name in (*PART_PACKAGES, *CORE_PACKAGES):
        package = _part_package(package_name) if package_name in PART_PACKAGES else None
        package = package or importlib.import_module(package_name)
        for module in pkgutil.walk_packages(package.__path__, package_name + "."):
            importlib.import_module(module.name)
    for point in importlib.metadata.entry_points(group="rlkit.plugins"):
        point.load()


class Shadowed(UserError, ImportError):
    """A package of rlkit's own that is not the one beside it."""


def _part_package(name: str) -> ModuleType:
    """The package beside `rlkit`, whatever in the working directory has its name.

    Raises Shadowed if something else of that name was imported first, or if it is not there.
    """
    home = HOME / name
    loaded = sys.modules.get(name)
    if loaded is None:
        file = home / "__init__.py"
        if not file.is_file():
            raise Shadowed(
                f"the package '{name}' of rlkit is missing: there is no {file}; install all of it"
            )
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    found = Path(loaded.__file__ or next(iter(loaded.__path__), "")).resolve()
    if found.parent != home:
        raise Shadowed(
            f"the package '{name}' of rlkit is shadowed: {found} was imported in place of {home}; "
            "rename that file or folder"
        )
    return loaded
