"""One table per kind of part: names to classes, filled by `register` and `variant`."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError, create_model

from rlkit.config.validation import validation_message
from rlkit.errors import UserError, known_names, suggest
from rlkit.plugins import (
    KINDS,
    SOURCES,
    check_class,
    forget_file,
    import_plugin,
    interface,
    load_parts,
    unknown_name,
)

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
by_module: dict[str, dict[tuple[str, str], Entry]] = defaultdict(dict)
"""What each module has registered, the newest class of each name; `scoped` takes nothing away."""
_aliases: dict[tuple[str, str], str] = {}
_wrappers: dict[str, Callable[..., type[Any]]] = {}
_class_wrappers: set[str] = set()


def register(kind: str, name: str) -> Callable[[type[T]], type[T]]:
    """Register a class under a kind and a name: `@register("loss", "remix")`.

    Raises UserError for an unknown kind, for what is no part of that kind, and for a name that
    another class already has.
    """
    check_kind(kind)

    def add(cls: type[T]) -> type[T]:
        check_class(kind, cls, f"{kind} '{name}'")
        entry = Entry(kind, name, cls)
        held = _table.get((kind, name))
        if held is not None and held.import_path != entry.import_path:
            raise UserError(
                f"two parts are called {kind} '{name}': "
                f"{held.import_path} and {entry.import_path}; rename one"
            )
        _table[kind, name] = by_module[cls.__module__][kind, name] = entry
        return cls

    return add


@contextmanager
def scoped() -> Generator[None]:
    """Unregisters, on exit, every part registered inside this context.

    Files of plug-ins are executed again when they are asked for next, as they are then.
    """
    load_parts()  # built-in parts stay
    before, files = dict(_table), dict(SOURCES)
    try:
        yield
    finally:
        _table.clear()
        _table.update(before)
        for name in [n for n, text in SOURCES.items() if files.get(n) is not text]:
            forget_file(name)
            by_module.pop(name, None)


def variant(name: str, *, of: type[T], doc: str, **settings: Any) -> type[T]:
    """Register a part a second time, with other defaults: the same code, other numbers.

        dapo = variant("dapo", of=PPO, doc="PPO with a wider upper clip.", clip_high=0.28)

    `settings` are defaults of the config's fields, which keep their type, bounds and docstring, or
    attributes of the class (`advantages`, `needs`, `sources`). As with `namedtuple`, the variable
    has the name of the variant, so that its import path is `module:dapo`.

    Raises UserError if `of` is not registered, and for a setting that it does not have or rejects.
    """
    base = next((found for found in _table.values() if found.cls is of), None)
    if base is None:
        raise UserError(f"variant '{name}' is of {of.__name__}, which is not registered")
    fields = base.config.model_fields
    for key in settings:
        if key not in fields and not _is_attribute(of, key):
            raise UserError(
                f"variant '{name}': {base.name} has no setting '{key}'."
                f"{suggest(key, list(fields))} {known_names(key, list(fields), str(base.source))}"
            )
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    module = frame.f_back.f_globals["__name__"]
    defaults = {key: value for key, value in settings.items() if key in fields}
    attributes = {key: value for key, value in settings.items() if key not in fields}
    body = {"Config": _restated(base, name, module, defaults), "__doc__": doc, "__module__": module}
    cls = cast("type[T]", type(name, (of,), body | attributes))
    return register(base.kind, name)(cls)


def _is_attribute(cls: type[Any], key: str) -> bool:
    return not key.startswith("_") and hasattr(cls, key) and not callable(getattr(cls, key))


def _restated(base: Entry, name: str, module: str, defaults: Mapping[str, Any]) -> type[BaseModel]:
    """The config of a variant: a subclass that restates these defaults and nothing else."""
    fields: dict[str, Any] = {
        key: (base.config.model_fields[key].rebuild_annotation(), value)
        for key, value in defaults.items()
    }
    config = create_model(
        f"{name}.Config",
        __base__=base.config,
        __module__=module,
        __doc__=f"Settings as `{base.name}`, with other defaults.",
        **fields,
    )
    try:
        config()
    except ValidationError as error:
        raise UserError(
            f"variant '{name}': {validation_message(error, config, prefix=f'{base.kind}.')}"
        ) from None
    return config


def alias(kind: str, old: str, new: str) -> None:
    """Let `old` build what is registered as `new`; only `new` is listed."""
    check_kind(kind)
    _aliases[kind, old] = new


def wraps_functions(kind: str) -> Callable[[F], F]:
    """Register how a plain function becomes a part of a kind: `@wraps_functions("reward")`.

    The decorated callable takes the function and returns a class, the same one at each call.
    """

    def add(wrapper: F) -> F:
        _wrappers[kind] = wrapper
        return wrapper

    return add


def wraps_classes(kind: str) -> Callable[[F], F]:
    """Register how a class that is no part becomes one, and a function: `wraps_functions` too."""
    _class_wrappers.add(kind)
    return wraps_functions(kind)


def check_kind(kind: str) -> None:
    """Raise UserError if there is no such kind of part."""
    if kind not in KINDS:
        raise UserError(
            f"there is no kind of part called '{kind}'.{suggest(kind, KINDS)} "
            f"Kinds: {', '.join(KINDS)}"
        )


def is_known(kind: str, name: str) -> bool:
    """Whether a part has this name, or had it once."""
    return name in names(kind) or (kind, name) in _aliases


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
        name = _aliases.get((kind, name), name)
    if name not in known:
        raise unknown_name(kind, name, known)
    return _table[kind, name]


def build(kind: str, name: str, **fields: Any) -> Any:
    """Build a part from its name and the fields that differ from its defaults.

    For example `build("loss", "remix", epsilon=0.1)`.
    Raises UserError for unknown names and fields and for values out of range.
    """
    return build_section(kind, name, fields, section=kind)


def build_section(kind: str, name: str, fields: Mapping[str, Any], section: str) -> Any:
    """`build` for a part whose settings are in another section ("reward.math")."""
    found = entry(kind, name)
    try:
        return found.cls(found.config(**fields))
    except ValidationError as error:
        raise UserError(validation_message(error, found.config, prefix=f"{section}.")) from None


def from_function(kind: str, function: Callable[..., Any]) -> type[Any]:
    """The class of a plain function as a part of a kind that accepts functions."""
    load_parts()
    return _wrappers[kind](function)


def from_import_path(kind: str, path: str) -> Entry:
    """Import `module:Class` (or `./file.py:Class`) and return its entry, registered if new."""
    load_parts()
    module_name, _, attribute = path.rpartition(":")
    module = import_plugin(module_name)
    if not hasattr(module, attribute):
        named = vars(module).items()
        known = [n for n, v in named if not n.startswith("_") and not isinstance(v, ModuleType)]
        raise UserError(
            f"{module_name} has no '{attribute}'.{suggest(attribute, known)} "
            f"{known_names(attribute, known, module_name)}"
        )
    cls = getattr(module, attribute)
    if _is_wrapped(kind, cls):
        cls = from_function(kind, cls)
    recorded = by_module.get(getattr(cls, "__module__", ""), {})
    for found in (*_table.values(), *recorded.values()):
        if found.kind == kind and found.cls is cls:
            return _table.setdefault((kind, found.name), found)
    check_class(kind, cls, path)
    register(kind, attribute)(cls)
    by_module[cls.__module__].pop((kind, attribute))  # the run's name for it, not the module's
    return _table[kind, attribute]


def _is_wrapped(kind: str, thing: object) -> bool:
    """Whether what a user names is no part yet, but something that the kind makes one of."""
    if isinstance(thing, type):
        return kind in _class_wrappers and not hasattr(thing, "Config")
    return callable(thing) and kind in _wrappers


def kind_of_class(part: Any) -> str | None:
    """The kind that something is registered as or, of a class, whose interface it derives from."""
    for kind in KINDS:
        if any(entry(kind, name).cls is part for name in names(kind)):
            return kind
    derived = (k for k in KINDS if isinstance(part, type) and issubclass(part, interface(k)))
    return next(derived, None)
