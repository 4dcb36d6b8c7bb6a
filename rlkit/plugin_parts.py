"""The parts that a run's plug-ins register."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from rlkit.plugins import import_plugin
from rlkit.registry import Entry, by_module, entry, from_import_path, is_known, register

_pulled: dict[str, set[str]] = defaultdict(set)
"""The modules that were first imported by each plug-in, by its module."""


def load_plugin(name: str) -> None:
    """Import a plug-in and register its parts, also if an earlier run of the process imported it.

    They are those of its module, of the modules below it, and of those that it was the first to
    import. Raises UserError for what cannot be imported, and for a name that another part has.
    """
    before = modules()
    module = import_plugin(name).__name__
    now = modules()
    below = {each for each in now if each == module or each.startswith(f"{module}.")}
    _pulled[module] |= (now - before) | below
    for each in sorted(_pulled[module] & now):
        for found in list(by_module[each].values()):
            register_again(found)


def modules() -> set[str]:
    """The modules that have registered a part, in this run or an earlier one of the process."""
    return {module for module, entries in by_module.items() if entries}


def register_again(found: Entry) -> None:
    """Register a part unless it is. Raises UserError if another class has its name."""
    held = is_known(found.kind, found.name) and entry(found.kind, found.name)
    if not held or held.import_path != found.import_path:
        register(found.kind, found.name)(found.cls)


def register_from_plugins(kind: str, name: str, plugins: Iterable[str]) -> None:
    """Register a name that no part has yet, if one of the plugins holds a part of that name.

    A run that was told `kind=./file.py:name` saves the name and the plugin apart.
    """
    if is_known(kind, name):
        return
    for plugin in plugins:
        if hasattr(import_plugin(plugin), name):
            from_import_path(kind, f"{plugin}:{name}")
            return
