"""The parts that a run's plug-ins register."""

from __future__ import annotations

from rlkit.plugins import import_plugin
from rlkit.registry import Entry, entries, register

_registered: dict[str, list[Entry]] = {}
"""What the import of each plug-in registered, by module."""


def load_plugin(name: str) -> None:
    """Import a plug-in and register its parts, also if an earlier run of the process imported it.

    Raises UserError for what cannot be imported, and for a name that another part has.
    """
    before = entries()
    module = import_plugin(name).__name__
    new = [found for key, found in entries().items() if before.get(key) is not found]
    if new or module not in _registered:
        _registered[module] = new
    for found in _registered[module]:
        register(found.kind, found.name)(found.cls)
