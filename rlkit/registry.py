"""One table a kind: names to classes, filled by a decorator.

Built-in parts are found by importing the four part packages beside `rlkit`; user parts come in
through `plugins=`, an entry point in the group `rlkit.plugins`, or an import path in place of a
name. Configurations can import code: run only those you trust.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from traceback import extract_tb
from types import ModuleType, UnionType
from typing import Any, TypeVar, Union, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rlkit.errors import UserError, known_names, suggest

KINDS = (
    "loss",
    "correction",
    "advantage",
    "buffer",
    "anchor",
    "schedule",
    "reward",
    "task",
    "rollout",
    "tracker",
)
PART_PACKAGES = ("algorithms", "buffers", "anchors", "schedules")
CORE_PACKAGES = ("rlkit.rewards", "rlkit.tasks", "rlkit.rollout", "rlkit.trackers")

T = TypeVar("T")


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


def check_kind(kind: str) -> None:
    """Raise UserError when there is no such kind of part."""
    if kind not in KINDS:
        raise UserError(
            f"there is no kind of part called '{kind}'.{suggest(kind, KINDS)} "
            f"Kinds: {', '.join(KINDS)}"
        )


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


def validation_message(error: ValidationError, config: type[BaseModel], prefix: str = "") -> str:
    """One line for the first problem pydantic found.

    It holds the key, what is wrong, and the nearest known key.
    """
    first, *others = error.errors()
    place = _without_union_label(config, first["loc"])
    key = prefix + ".".join(str(part) for part in place)
    if first["type"] == "extra_forbidden":
        known = list(_model_of(config, first["loc"]).model_fields)
        word = str(first["loc"][-1])
        listed = known_names(word, known, how_to_list(key.rpartition(".")[0]))
        return f"unknown key {key}.{_deeper(config, word) or suggest(word, known)} {listed}"
    if first["type"] == "value_error":
        return _placed(first["msg"].removeprefix("Value error, "), key.rstrip("."), config)
    if first["type"] == "missing" and isinstance(place[-1], int):
        place_of_list = key.rpartition(".")[0]
        return f"{place_of_list}={as_written(first['input'])} is not valid: it has too few values"
    if first["type"] == "missing":
        return f"{key} is missing"
    wanted = _wanted(first, config)
    for other in others:  # the other members of a union
        if place != first["loc"] and _without_union_label(config, other["loc"]) == place:
            wanted += f" or {_wanted(other, config)}"
    return f"{key}={as_written(first['input'])} is not valid: it must be {wanted}"


def _deeper(config: type[BaseModel], word: str) -> str:
    """Return " Did you mean 'x.word'?" where a section of a config has the key."""
    for name, field in config.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and word in inner.model_fields:
            return f" Did you mean '{name}.{word}'?"
    return ""


def how_to_list(section: str) -> str:
    """Where a user finds every key of a section."""
    kind = section.partition(".")[0]
    if kind in KINDS:
        return f"`python -m rlkit show {kind} <name>`"
    return f"`python -m rlkit.run --cfg job{f' -p {section}' if section else ''}`"


def as_written(value: object) -> str:
    """A value as the command line writes it: null, true, [1,2], {a:1}."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_written, value))}]"
    return str(value) or "''"


WANTED = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list, such as [a,b]",
    "dict": "keys and values, such as {a:1}",
    "model": "keys and values, such as {a:1}",
}
"""pydantic's words before the first "_" of an error's type, in the user's."""
TYPE_ERRORS = ("type", "parsing", "from_float")


def _wanted(error: ErrorDetails, config: type[BaseModel]) -> str:
    """What a value must be, after "it must be"."""
    kind, _, what = error["type"].partition("_")
    if kind in WANTED and what in TYPE_ERRORS:
        schedule = isinstance(error["input"], Mapping) and "kind" in error["input"]
        return WANTED[kind] + (", a schedule is not possible here" if schedule else "")
    if error["type"] == "string_pattern_mismatch":
        field = _model_of(config, error["loc"]).model_fields[str(error["loc"][-1])]
        return str(field.description).partition(";")[0]
    if error["type"] == "too_long":
        return f"a list of {error.get('ctx', {})['max_length']} values"
    return error["msg"].removeprefix("Input should be ")


def _placed(message: str, place: str, config: type[BaseModel]) -> str:
    """A part's own message, with the section it is about in front."""
    word = re.split(r"\W", message, maxsplit=1)[0]
    if not place or message.startswith(f"{place}."):
        return message
    return f"{place}.{message}" if word in config.model_fields else f"{place}: {message}"


def _without_union_label(
    config: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[int | str, ...]:
    """The place of an error without pydantic's name for the member of a union it tried."""
    field = config.model_fields.get(str(location[0])) if location else None
    origin = get_origin(field.annotation) if field else None
    return location[:1] if origin in (Union, UnionType) else location


def _model_of(config: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel]:
    """The model in which the last key of `location` stands."""
    for part in location[:-1]:
        inner = config.model_fields[str(part)].annotation
        assert isinstance(inner, type) and issubclass(inner, BaseModel)
        config = inner
    return config


def from_import_path(kind: str, path: str) -> Entry:
    """Import `module:Class` (or `./file.py:Class`) and return its entry, registered if new."""
    module_name, _, attribute = path.rpartition(":")
    module = import_plugin(module_name)
    if not hasattr(module, attribute):
        known = [n for n in vars(module) if not n.startswith("_")]
        raise UserError(
            f"{module_name} has no '{attribute}'.{suggest(attribute, known)} "
            f"{known_names(attribute, known, module_name)}"
        )
    cls = getattr(module, attribute)
    if kind == "reward" and callable(cls) and not isinstance(cls, type):
        from rlkit.rewards.function import reward_class

        cls = reward_class(cls)
    for found in _table.values():
        if found.kind == kind and found.cls is cls:
            return found
    if not (isinstance(cls, type) and hasattr(cls, "Config")):
        raise UserError(f"{path} is not a part: a {kind} is a class with a Config")
    register(kind, attribute)(cls)
    return _table[kind, attribute]


def import_plugin(name: str) -> ModuleType:
    """Import a user's module by dotted name or by file path.

    Raises UserError when it is not there, or with the place and the error of a module that fails.
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
    """The line of a module that raised, " (file.py, line 3)"; a SyntaxError says its own."""
    frames = [frame for frame in extract_tb(error.__traceback__) if frame.name == "<module>"]
    if isinstance(error, SyntaxError) or not frames:
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


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
    module_name = f"rlkit_plugin_{path.stem}"
    loaded = sys.modules.get(module_name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    if loaded is not None:
        raise UserError(
            f"two plugin files are called {path.name}: {loaded.__file__} and {path}; rename one"
        )
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


@cache
def load_parts() -> None:
    """Import every built-in part and every installed plug-in, once."""
    home = Path(__file__).resolve().parent.parent
    for package_name in (*PART_PACKAGES, *CORE_PACKAGES):
        package = importlib.import_module(package_name)
        found = Path(package.__file__ or "").resolve().parent
        if package_name in PART_PACKAGES and found.parent != home:
            raise ImportError(
                f"rlkit's own package '{package_name}' is shadowed: "
                f"found {found}, expected {home / package_name}"
            )
        for module in pkgutil.walk_packages(package.__path__, package_name + "."):
            importlib.import_module(module.name)
    for point in importlib.metadata.entry_points(group="rlkit.plugins"):
        point.load()
