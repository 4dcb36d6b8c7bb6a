"""`list` and `show`: what can be chosen, and what there is to say of it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlkit.composition.catalog import PartInfo, Setting, part_info
from rlkit.composition.catalog_file import catalog
from rlkit.composition.config_files import (
    COMPOSED,
    GROUPS,
    ConfigFile,
    check_group,
    files_of,
    options,
    read_config_file,
)
from rlkit.config.validation import as_written
from rlkit.errors import UserError, suggest
from rlkit.plugins import KINDS, LIST_KINDS, unknown_name
from rlkit.registry import from_import_path
from rlkit.runs.resume import flat

WIDTH = 92
NAMES_FROM = 13
"""The column of the names in a list of all groups."""


def list_options(group: str | None, folders: Sequence[Path]) -> None:
    """Print the names that can be chosen of one group, or of every group."""
    if group:
        print("\n".join(options(group, folders)))
        return
    for each in GROUPS:
        print(f"{each + ':':<{NAMES_FROM}}{', '.join(options(each, folders))}")


def show(group: str, name: str | None, folders: Sequence[Path]) -> None:
    """Print what a part, a variant, a composition or an experiment is and what it sets.

    `group` without `name` is `group=name`, or a name that only one group has. Raises UserError for
    an unknown group or name.
    """
    if name is None:
        group, name = named(group, folders)
    check_group(group)
    if group in KINDS and ":" in name:
        return _show_part(part_info(from_import_path(group, name)))
    if group in KINDS and name in catalog().parts[group]:
        return _show_part(catalog().part(group, name))
    files = files_of(group, folders)
    if name not in files:
        raise unknown_name(group, name, options(group, folders))
    file = read_config_file(files[name])
    print(f"{group}={name}  {file.path}\n")
    if file.about:
        print(file.about, "\n")
    if group in COMPOSED:
        return _show_choices(group, file)
    return _show_variant(group, file, files)


def named(word: str, folders: Sequence[Path]) -> tuple[str, str]:
    """The group and the name that a single word means. Raises UserError if it means none or two."""
    group, given, name = word.partition("=")
    if given:
        return group, name
    every = {each: options(each, folders) for each in GROUPS}
    found = [each for each, names in every.items() if word in names]
    if len(found) == 1:
        return found[0], word
    if found:
        ways = ", ".join(f"rlkit show {each} {word}" for each in found)
        raise UserError(f"{word} is the name of {len(found)} things, say which: {ways}")
    if word in GROUPS:
        raise UserError(f"rlkit show {word} needs a name: rlkit list {word} has them")
    close = suggest(word, [name for names in every.values() for name in names])
    raise UserError(f"nothing is called '{word}'.{close} rlkit list has all names")


def _show_part(part: PartInfo) -> None:
    """Print a part's documentation and its settings with defaults and bounds."""
    print(f"{part.kind}={part.name}  {part.import_path}  {part.source}\n")
    print(part.file_documentation, "\n")
    print(part.documentation, "\n")
    print_settings(part.settings, part.section)


def print_settings(settings: Iterable[Setting], section: str = "") -> None:
    """Print settings as they are written on the command line, each with its meaning."""
    for each in settings:
        key = f"{section}.{each.name}" if section else each.name
        print(f"{key} = {each.default}    ({each.values})")
        print(textwrap.indent(textwrap.fill(each.meaning, WIDTH, break_on_hyphens=False), "    "))


def _show_choices(group: str, file: ConfigFile) -> None:
    """Print what a composition or an experiment chooses and sets, as overrides."""
    for chosen, option in (*((group, base) for base in file.bases), *file.chooses):
        print(f"{chosen}={as_written(option)}")
    _print_values(file.values, "")


def _print_values(values: Mapping[str, Any], section: str, indent: str = "") -> None:
    for key, value in flat(values, section).items() if values else ():
        print(f"{indent}{key}={as_written(value)}")


def _show_variant(kind: str, file: ConfigFile, files: Mapping[str, Path]) -> None:
    """Print the settings of the part that a variant is of, with the defaults of the variant."""
    own = dict(file.values)
    bases = file.bases
    while bases and bases[0] not in catalog().parts[kind] and bases[0] in files:
        below = read_config_file(files[bases[0]])
        own, bases = {**below.values, **own}, below.bases
    part = catalog().parts[kind].get(bases[0]) if bases else None
    if part is None:
        return _print_values(own, kind)
    print(f"{kind}={as_written([part.name] if kind in LIST_KINDS else part.name)} with")
    _print_values(own, part.section, indent="  ")
    print()
    print_settings(
        (
            replace(each, default=json.dumps(own[each.name])) if each.name in own else each
            for each in part.settings
        ),
        part.section,
    )
    return None
