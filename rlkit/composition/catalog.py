"""What the registry knows of each part, for people and for Hydra, as plain data.

Parts import torch. What `list`, `show`, `--help` and the message for a misspelt key say of them
comes from a catalog, which `catalog_file` keeps on disk.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from rlkit.plugins import KINDS, LIST_KINDS, unknown_name
from rlkit.registry import Entry, check_kind, entry, names

OUTPUT_DIR = "runs/${run_label:}-${now:%Y%m%d-%H%M%S-%f}"
"""The default of `output_dir`: only Hydra knows the composition and the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One config field of a part or of the run."""

    name: str
    default: str
    """As JSON."""
    values: str
    """Type and bounds in a few characters."""
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartInfo:
    """What there is to say of a registered part."""

    kind: str
    name: str
    import_path: str
    source: str
    """The file that defines it."""
    file_documentation: str
    documentation: str
    settings: tuple[Setting, ...]
    node: dict[str, Any]
    """Its name and defaults as Hydra composes them."""

    @property
    def section(self) -> str:
        """Where its settings stand in a configuration: "loss", "reward.math"."""
        return f"{self.kind}.{self.name}" if self.kind in LIST_KINDS else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Every registered part by kind and name, and the run's own settings."""

    parts: Mapping[str, Mapping[str, PartInfo]]
    run_settings: tuple[Setting, ...]
    """Under dotted names such as "model.lora.r"."""
    run_node: dict[str, Any]

    def names(self, kind: str) -> list[str]:
        """The registered names of a kind, sorted."""
        check_kind(kind)
        return sorted(self.parts[kind])

    def part(self, kind: str, name: str) -> PartInfo:
        """A registered part. Raises UserError with the nearest name."""
        known = self.names(kind)
        if name not in known:
            raise unknown_name(kind, name, known)
        return self.parts[kind][name]

    def run_keys(self) -> list[str]:
        """Every key of the run's own settings, and before its keys each section."""
        keys: dict[str, None] = {}
        for setting in self.run_settings:
            words = setting.name.split(".")
            keys |= {".".join(words[:depth]): None for depth in range(1, len(words) + 1)}
        return list(keys)

    def sections(self) -> dict[str, list[str]]:
        """The sections of the run's own settings, each with the keys directly in it."""
        out: dict[str, list[str]] = {}
        for key in self.run_keys():
            section, _, field = key.rpartition(".")
            if section and "." not in section:
                out.setdefault(section, []).append(field)
        return out

    def to_json(self) -> str:
        """Text for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Catalog:
        """The catalog that `to_json` wrote."""
        raw = json.loads(text)
        return cls(
            parts={
                kind: {
                    name: PartInfo(**part | {"settings": _settings(part["settings"])})
                    for name, part in parts.items()
                }
                for kind, parts in raw["parts"].items()
            },
            run_settings=_settings(raw["run_settings"]),
            run_node=raw["run_node"],
        )


def _settings(raw: list[dict[str, str]]) -> tuple[Setting, ...]:
    return tuple(Setting(**each) for each in raw)


def of_registry() -> Catalog:
    """The catalog of the parts as they are registered now; imports all built-in ones."""
    parts = {kind: {name: part_info(entry(kind, name)) for name in names(kind)} for kind in KINDS}
    return replace(_of_runs(), parts=parts)


@cache
def _of_runs() -> Catalog:
    """The catalog of a run's own settings, without parts."""
    from rlkit.config.run import RunConfig

    return Catalog(
        parts={},
        run_settings=tuple(_run_settings(RunConfig, "")),
        run_node=RunConfig(output_dir=OUTPUT_DIR).model_dump(mode="json"),
    )


_infos: WeakKeyDictionary[type[Any], PartInfo] = WeakKeyDictionary()


def part_info(found: Entry) -> PartInfo:
    """What there is to say of a registered part; kept as long as its class is."""
    info = _infos.get(found.cls)
    if info is None or (info.kind, info.name) != (found.kind, found.name):
        info = _infos[found.cls] = PartInfo(
            kind=found.kind,
            name=found.name,
            import_path=found.import_path,
            source=str(found.source),
            file_documentation=file_documentation(found),
            documentation=documentation(found),
            settings=tuple(settings(found)),
            node=node(found),
        )
    return info


def node(found: Entry) -> dict[str, Any]:
    """A part's name and default settings as a config node."""
    return {"name": found.name, **found.config().model_dump(mode="json")}


def settings(entry: Entry) -> Iterator[Setting]:
    """Every config field of a registered part, in order."""
    return _fields(entry.config)


def _fields(config: type[BaseModel]) -> Iterator[Setting]:
    for name, field in config.model_json_schema().get("properties", {}).items():
        yield Setting(
            name=name,
            default=json.dumps(field.get("default")),
            values=values_of(field),
            meaning=" ".join(str(field.get("description", "")).split()),
        )


def _run_settings(config: type[BaseModel], prefix: str) -> Iterator[Setting]:
    """The fields of a config and of the configs in it, under dotted names."""
    for setting in _fields(config):
        inner = config.model_fields[setting.name].annotation
        place = prefix + setting.name
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _run_settings(inner, f"{place}.")
        else:
            default = json.dumps("runs/<algorithm>-<time>")  # OUTPUT_DIR, for people
            yield replace(
                setting, name=place, default=default if place == "output_dir" else setting.default
            )


def values_of(field: dict[str, Any]) -> str:
    """The type and bounds of a field of a JSON schema, in a few characters."""
    if "anyOf" in field:
        return " or ".join(values_of(option) for option in field["anyOf"])
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = ", ".join(f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field)
    return str(field.get("type", "any")) + (f" {bounds}" if bounds else "")


def file_documentation(entry: Entry) -> str:
    """The docstring of the part's file."""
    return inspect.cleandoc(sys.modules[entry.cls.__module__].__doc__ or "")


def documentation(entry: Entry) -> str:
    """The docstring of the part's class."""
    return inspect.cleandoc(entry.cls.__doc__ or "")
