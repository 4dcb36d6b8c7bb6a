"""One table per kind of part: names to classes, filled by a decorator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rlkit.config.validation import validation_message
from rlkit.errors import UserError, known_names, suggest
from rlkit.plugins import KINDS, import_plugin, load_parts

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., type[Any]])


@dataclass(frozen=True)
class Entry:
    """A registered part."""

    kind: str
    name: str
    cls: type[Any]

    @property
    def config(self) -> type[BaseModel]:
        """Its pydantic config."""
        config: type[BaseModel] = self.cls.Config
        return config

    @property
    def import_path(self) -> str:
        """The path of its class, `module:Class`."""
        return f"{self.cls.__module__}:{self.cls.__qualname__}"

    @property
    def source(self) -> Path:
        """The file that defines it."""
        return Path(inspect.getsourcefile(self.cls) or "")


_table: dict[tuple[str, str], Entry] = {}
_wrappers: dict[str, Callable[..., type[Any]]] = {}


def register(kind: str, name: str) -> Callable[[type[T]], type[T]]:
    """Register a class under a kind and a name: `@register("loss", "remix")`.

    Raises UserError for an unknown kind and for a name that another class holds.
    """
    check_kind(kind)

    def add(cls: type[T]) -> type[T]:
        entry = Entry(kind, name, cls)
        held = _table.get((kind, name))
        if held is not None and held.import_path != entry.import_path:
            raise UserError(
                f"two parts are called {kind} '{name}': "
                f"{held.import_path} and {entry.import_path}; rename one"
            )
        _table[kind, name] = entry
        return cls

    return add


def wraps_functions(kind: str) -> Callable[[F], F]:
    """Say how a plain function becomes a part of a kind: `@wraps_functions("reward")`.

    The decorated callable takes the function and returns a class, the same one at each call.
    """

    def add(wrapper: F) -> F:
        _wrappers[kind] = wrapper
        return wrapper

    return add


def check_kind(kind: str) -> None:
    """Raise UserError when there is no such kind of part."""
    if kind not in KINDS:
        raise UserError(
            f"there is no kind of part called '{kind}'.{suggest(kind, KINDS)} "
            f"Kinds: {', '.join(KINDS)}"
        )


def any_registered() -> bool:
    """Whether any part has been imported yet, a built-in one or a user's."""
    return bool(_table)


def names(kind: str) -> list[str]:
    """The registered names of a kind, sorted."""
    check_kind(kind)
    load_parts()
    return sorted(n for k, n in _table if k == kind)


def entry(kind: str, name: str) -> Entry:
    """The entry of a name, or of an import path `module:Class`.

    Raises UserError with the nearest name.
    """
    known = names(kind)
    if ":" in name:
        return from_import_path(kind, name)
    if name not in known:
        raise UserError(
            f"there is no {kind} called '{name}'.{suggest(name, known)} "
            f"{known_names(name, known, f'`python -m rlkit list {kind}`')}"
        )
    return _table[kind, name]


def build(kind: str, name: str, **fields: Any) -> Any:
    """Build a part from its name and the fields that differ from its defaults.

    For example `build("loss", "remix", epsilon=0.1)`.
    Raises UserError for unknown names and fields and for values out of range.
    """
    return build_section(kind, name, fields, section=kind)


def build_section(kind: str, name: str, fields: Mapping[str, Any], section: str) -> Any:
    """`build` for a part whose settings stand in another section ("reward.math")."""
    found = entry(kind, name)
    try:
        return found.cls(found.config(**fields))
    except ValidationError as error:
        raise UserError(validation_message(error, found.config, prefix=f"{section}.")) from None


def from_import_path(kind: str, path: str) -> Entry:
    """Import `module:Class` (or `./file.py:Class`) and return its entry, registered if new."""
    load_parts()
    module_name, _, attribute = path.rpartition(":")
    module = import_plugin(module_name)
    if not hasattr(module, attribute):
        known = [n for n in vars(module) if not n.startswith("_")]
        raise UserError(
            f"{module_name} has no '{attribute}'.{suggest(attribute, known)} "
            f"{known_names(attribute, known, module_name)}"
        )
    cls = getattr(module, attribute)
    if callable(cls) and not isinstance(cls, type) and kind in _wrappers:
        cls = _wrappers[kind](cls)
    for found in _table.values():
        if found.kind == kind and found.cls is cls:
            return found
    if not (isinstance(cls, type) and hasattr(cls, "Config")):
        raise UserError(f"{path} is not a part: a {kind} is a class with a Config")
    register(kind, attribute)(cls)
    return _table[kind, attribute]
