"""Options that are YAML files: compositions, experiments and variants of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import rlkit
from rlkit.composition.catalog_file import catalog
from rlkit.config.overrides import quoted
from rlkit.errors import UserError, suggest
from rlkit.plugins import KINDS

COMPOSED = ("algorithm", "experiment")
"""The groups whose options are files alone, which choose parts of several kinds."""
GROUPS = (*KINDS, *COMPOSED)
"""The groups of which a user chooses."""
WORDS = ("override ", "optional ")
"""What Hydra allows in front of a group in a defaults list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """An option of a group, as its file states it."""

    path: Path
    about: str
    """The comment at its top."""
    chooses: tuple[tuple[str, Any], ...]
    """Pairs of a group and the option that the file takes of it, in order."""
    bases: tuple[str, ...]
    """Options of its own group on which it builds."""
    values: Mapping[str, Any]


def configs_folder() -> Path:
    """The shipped configs: beside the package in a checkout, inside it in a wheel."""
    package = Path(rlkit.__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_folders(own: str | None) -> tuple[Path, ...]:
    """The shipped configs and a user's own folder, if there is one, in Hydra's order."""
    if own is None:
        return (configs_folder(),)
    if not Path(own).is_dir():
        raise UserError(f"--config-dir {own} is no folder")
    return (configs_folder(), Path(own).resolve())


def search_path(own: str | None) -> list[str]:
    """The override by which Hydra searches a user's own folder too; none without such a folder."""
    folders = [quoted(f"file://{folder}") for folder in config_folders(own)[1:]]
    return [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []


def hidden(own: str | None, overrides: Sequence[str]) -> list[str]:
    """A warning for each file of a user's folder that is chosen and has the name of one of ours."""
    ours, *folders = config_folders(own)
    lines = []
    for group, _, option in (each.lstrip("+").partition("=") for each in overrides):
        file = Path(group) / f"{option}.yaml"
        if (
            group in GROUPS
            and (ours / file).is_file()
            and any((folder / file).is_file() for folder in folders)
        ):
            lines.append(
                f"Warning: {group}={option} is rlkit's own; give {file} in {own} another name to "
                "choose it."
            )
    return lines


def check_group(group: str) -> None:
    """Raise UserError when there is no such group to choose from."""
    if group not in GROUPS:
        raise UserError(
            f"there is no kind of part called '{group}'.{suggest(group, GROUPS)} "
            f"Kinds: {', '.join(GROUPS)}"
        )


def files_of(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """The files of a group by name; where two folders hold one, that of the first, as in Hydra."""
    found = [path for folder in folders for path in sorted((folder / group).glob("*.yaml"))]
    return {path.stem: path for path in reversed(found)}


def options(group: str, folders: Sequence[Path]) -> list[str]:
    """Every name that can be chosen of a group, sorted."""
    check_group(group)
    registered = catalog().names(group) if group in KINDS else ()
    return sorted({*registered, *files_of(group, folders)})


def read_config_file(path: Path) -> ConfigFile:
    """What a file states. Raises UserError if it is not YAML of that form."""
    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.safe_load(text) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} is no config: it must hold keys and values")
    entries = raw.pop("defaults", None) or []
    pairs = [pair for each in entries if isinstance(each, dict) for pair in each.items()]
    return ConfigFile(
        path=path,
        about=_comment(text),
        chooses=tuple((_group(str(key)), option) for key, option in pairs),
        bases=tuple(each for each in entries if isinstance(each, str) and each != "_self_"),
        values=raw,
    )


def _comment(text: str) -> str:
    """The comment at the top of a file, without the line that is Hydra's."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(line for line in lines if not line.startswith("@package"))


def _group(key: str) -> str:
    """The group that an entry of a defaults list names: "override /loss" names loss."""
    for word in WORDS:
        key = key.removeprefix(word)
    return key.lstrip("/").partition("@")[0]


def default_choices() -> dict[str, Any]:
    """What a run takes of each group when nothing else is said."""
    chosen = dict(read_config_file(configs_folder() / "config.yaml").chooses)
    algorithm = configs_folder() / "algorithm" / f"{chosen['algorithm']}.yaml"
    chosen |= dict(read_config_file(algorithm).chooses)
    return {group: chosen[group] for group in GROUPS if group in chosen}
