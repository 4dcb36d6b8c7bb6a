"""The judge's prompt: a text with {names}, and what stands for each of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from string import Formatter
from typing import Any

from rlkit.errors import UserError, known_names, suggest

COMPLETION = "completion"
"""The name that stands for the response."""


def pieces(template: str) -> list[tuple[str, str | None]]:
    """Each literal text with the name that follows it; doubled braces are braces.

    Raises ValueError for a brace that belongs to no name.
    """
    found: list[tuple[str, str | None]] = []
    try:
        for literal, name, form, conversion in Formatter().parse(template):
            if name is not None and (form or conversion or not name.strip()):
                raise ValueError(f"'{{{name}' is no name")
            found.append((literal, name))
    except ValueError as error:
        raise ValueError(
            f"{error}; write {{name}} for a column, and {{{{ and }}}} for braces that are text"
        ) from None
    return found


def names_in(template: str) -> list[str]:
    """The names that it holds, each once. Raises ValueError for a brace that belongs to none."""
    return list(dict.fromkeys(name for _, name in pieces(template) if name is not None))


def check_names(names: Sequence[str], known: Collection[str], place: str) -> None:
    """Raise UserError for a name that is not known, with those that are."""
    for name in names:
        if name not in known:
            listed = known_names(name, sorted(known), "the task's columns")
            raise UserError(
                f"{place} holds {{{name}}}, which is not a column of the task."
                f"{suggest(name, known)} {listed}"
            )


def filled(template: str, values: Mapping[str, Any]) -> str | None:
    """The template with the value of each name in its place; None if one of these is None.

    Braces inside a value are text.
    """
    out = ""
    for literal, name in pieces(template):
        out += literal
        if name is None:
            continue
        value = values[name]
        if value is None:
            return None
        out += as_text(value)
    return out.encode("utf-8", "replace").decode()


def as_text(value: Any) -> str:
    """A text as it is, messages as a conversation, other lists and dicts as JSON."""
    if isinstance(value, str):
        return value
    if is_messages(value):
        return conversation(value)
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def is_messages(value: Any) -> bool:
    """Whether a value is a list of chat messages."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(each, Mapping) and {"role", "content"} <= each.keys() for each in value)
    )


def conversation(messages: Sequence[Mapping[str, Any]]) -> str:
    """What was said; with several messages also by whom."""
    said = [content_text(message["content"]) for message in messages]
    if len(messages) == 1:
        return said[0]
    return "\n\n".join(f"{m['role']}: {text}" for m, text in zip(messages, said, strict=True))


def content_text(content: Any) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or ())
