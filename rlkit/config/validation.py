"""pydantic's validation errors as one line in the user's terms."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rlkit.errors import UserError, known_names, suggest
from rlkit.plugins import KINDS

M = TypeVar("M", bound=BaseModel)


def validation_message(error: ValidationError, config: type[BaseModel], prefix: str = "") -> str:
    """One line for the first problem pydantic found.

    It names the key, what is wrong, and the nearest known key.
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


def with_value(config: M, place: str, value: float) -> M:
    """A config in which a schedule sets "section.field" to a value; integer fields round it.

    Raises UserError for a field that it does not have and a value that it does not accept.
    """
    section, _, key = place.rpartition(".")
    fields = type(config).model_fields
    if key not in fields:
        near = suggest(key, fields).replace("'", f"'{section}.", 1)
        raise UserError(f"the schedule sets {place}, but this run has no such field.{near}")
    whole = type(getattr(config, key)) is int and isinstance(value, float) and math.isfinite(value)
    number = round(value) if whole else value
    try:
        return type(config).model_validate({**config.model_dump(), key: number})
    except ValidationError as error:
        message = validation_message(error, type(config), f"{section}.")
        raise UserError(f"the schedule sets {place}, but {message}") from None


def _deeper(config: type[BaseModel], word: str) -> str:
    """Return " Did you mean 'x.word'?" if a section of a config has the key."""
    for name, field in config.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and word in inner.model_fields:
            return f" Did you mean '{name}.{word}'?"
    return ""


def how_to_list(section: str, name: str = "<name>") -> str:
    """The command that lists every key of a section, which is of the part `name`."""
    kind = section.partition(".")[0]
    if kind in KINDS:
        return f"`rlkit show {kind} {name}`"
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
"""The part of a pydantic error type before its first "_" -> the user's term for it."""


LENGTHS = {
    "too_long": "a list of {max_length} values",
    "too_short": "a list of {min_length} or more values",
    "string_too_short": "text of {min_length} or more characters",
    "string_too_long": "text of {max_length} or fewer characters",
}
"""pydantic error type -> the user's term for what has another length."""
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
    if error["type"] in LENGTHS:
        return LENGTHS[error["type"]].format(**error.get("ctx", {}))
    return error["msg"].removeprefix("Input should be ")


def _placed(message: str, place: str, config: type[BaseModel]) -> str:
    """A part's own message, prefixed with the section it is about."""
    word = re.split(r"\W", message, maxsplit=1)[0]
    if not place or message.startswith(f"{place}."):
        return message
    return f"{place}.{message}" if word in config.model_fields else f"{place}: {message}"


def _without_union_label(
    config: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[int | str, ...]:
    """The location of an error without pydantic's label for the union member it tried."""
    inner: object = config
    for depth, part in enumerate(location, start=1):
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        field = inner.model_fields.get(str(part))
        inner = field.annotation if field else None
        if get_origin(inner) in (Union, UnionType):
            members = [member for member in get_args(inner) if member is not NoneType]
            if len(members) > 1:  # an optional value has no label
                return location[:depth]
            inner = members[0]
    return location


def _model_of(config: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel]:
    """The model that holds the last key of `location`."""
    for part in location[:-1]:
        inner = config.model_fields[str(part)].annotation
        assert isinstance(inner, type) and issubclass(inner, BaseModel)
        config = inner
    return config
