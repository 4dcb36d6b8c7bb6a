"""The environment of a configuration's sections, built where its episodes are played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlkit.config.validation import validation_message
from rlkit.environments.journal import Journal
from rlkit.environments.mixed import Mixed
from rlkit.environments.own import with_tools
from rlkit.errors import UserError
from rlkit.interfaces import Environment, EpisodeContext
from rlkit.plugins import SEVERAL
from rlkit.registry import build_section, entry

SECTION = "environment"
"""The kind, and its section of a configuration."""
PARTS = "of"
"""The key of the names and settings of several."""


def names_in(node: Any) -> list[str]:
    """The registered parts that a config section names."""
    if not isinstance(node, Mapping) or "name" not in node:
        return []
    return list(node.get(PARTS) or ()) if node["name"] == SEVERAL else [node["name"]]


def remembering(journal: Path, *others: Path) -> EpisodeContext:
    """The context of an environment whose calls that must not be made twice are noted in a file.

    `others` are the files of runs that this one continues.
    """
    kept = Journal(journal, others)
    return EpisodeContext(note=kept.note, noted=kept.earlier)


def built(node: Mapping[str, Any] | None, tools: Sequence[str]) -> Environment[Any] | None:
    """The environment of a section, with functions as further tools; None for neither.

    Raises UserError for settings that it does not have, and for functions that are no tools.
    """
    if node is not None and node["name"] == SEVERAL:
        return _several(node, tools)
    fields = {key: value for key, value in (node or {}).items() if key != "name"}
    if not tools:
        return build_section(SECTION, node["name"], fields, SECTION) if node is not None else None
    cls = with_tools(entry(SECTION, node["name"]).cls if node is not None else None, tools)
    try:
        return cls(cls.Config.model_validate(fields))
    except ValidationError as error:
        raise UserError(validation_message(error, cls.Config, f"{SECTION}.")) from None


def _several(node: Mapping[str, Any], tools: Sequence[str]) -> Environment[Any]:
    if tools:
        raise UserError(
            f"tools= join one environment, and {SECTION}=[...] names several: make the functions "
            "methods of a class of your own, one of them"
        )
    settings = {name: dict(fields or {}) for name, fields in (node.get(PARTS) or {}).items()}
    return Mixed(
        {
            name: build_section(SECTION, name, fields, f"{SECTION}.{PARTS}.{name}")
            for name, fields in settings.items()
        }
    )
