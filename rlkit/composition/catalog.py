"""What the registry knows about a part: its settings with values, bounds and meaning."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rlkit.registry import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One config field of a part."""

    name: str
    default: str
    """As JSON."""
    values: str
    """Type and bounds in a few characters."""
    meaning: str


def settings(entry: Entry) -> Iterator[Setting]:
    """Every config field of a registered part, in order."""
    for name, field in entry.config.model_json_schema().get("properties", {}).items():
        yield Setting(
            name=name,
            default=json.dumps(field.get("default")),
            values=values_of(field),
            meaning=" ".join(str(field.get("description", "")).split()),
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
