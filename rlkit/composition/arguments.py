"""The arguments of the command line, before Hydra reads them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import yaml

from rlkit.config.overrides import quoted
from rlkit.errors import UserError, kind_of

VALUED = (
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
    *("--package", "-p", "--cfg", "-c", "--experimental-rerun"),
)
"""Hydra's options that are followed by a value."""
INFO = "--info"
"""The option that may be followed by one."""
_SETTING = re.compile(r"\+{0,2}([^+~=\-][^=]*)=")
_STAGES = re.compile(r"stages\s*[:=]\s*(\[.*)", re.DOTALL)


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Options before settings: Hydra does not read settings on both sides of an option."""
    flags, settings, last = list[str](), list[str](), list[str]()
    place = 0
    while place < len(arguments):
        argument = arguments[place]
        follows = arguments[place + 1 : place + 2]
        place += 1
        if not argument.startswith("-"):
            settings.append(argument)
        elif argument in VALUED or (argument == INFO and follows and "=" not in follows[0]):
            (last if argument == INFO else flags).extend([argument, *follows])
            place += len(follows)
        else:
            (last if argument == INFO else flags).append(argument)
    return [*flags, *settings, *last]


def repeated(arguments: Sequence[str]) -> Iterator[str]:
    """A line for each key that is given more than once."""
    given = [(match[1], a) for a in arguments if (match := _SETTING.match(a))]
    for key, count in Counter(key for key, _ in given).items():
        if count > 1:
            last = next(a for other, a in reversed(given) if other == key)
            yield f"{key} is given {count} times; the last counts: {last}"


def unpasted(argument: object) -> str:
    """An override as Hydra reads it: `stages: [...]`, as a file has it, becomes `stages=[...]`.

    Hydra wants quotes around text with = in it, which YAML does without. Raises UserError for an
    override that is no text, which Python code may give.
    """
    if not isinstance(argument, str):
        raise UserError(
            f"{argument!r} is {kind_of(argument)}, not an override: write text, such as "
            '"train.steps=3"'
        )
    match = _STAGES.fullmatch(argument)
    if match is None:
        return argument
    written = f"stages={match[1]}"
    if is_readable(written):
        return written
    try:
        value = yaml.safe_load(match[1])
    except yaml.YAMLError:
        return argument
    found = f"stages={literal(value)}"
    whole = isinstance(value, list) and all(isinstance(s, dict) and "steps" in s for s in value)
    return found if whole and is_readable(found) else argument


def is_readable(override: str) -> bool:
    """Whether Hydra can read an override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_overrides([override])
    except HydraException:
        return False
    return True


def literal(value: object) -> str:
    """A value in Hydra's grammar, its texts in quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return str(value)
    return quoted(str(value))
