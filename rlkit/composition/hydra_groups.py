"""What Hydra composes from: every registered part as a config group option, and the configs folder.

A default is written once, in the part's Config; Hydra gets it from the catalog through the
ConfigStore.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from rlkit.composition.arguments import unpasted
from rlkit.composition.catalog import PartInfo
from rlkit.composition.catalog_file import catalog
from rlkit.config.overrides import quoted
from rlkit.errors import UserError
from rlkit.plugin_parts import load_plugin
from rlkit.plugins import KINDS, LIST_KINDS, OPTIONAL_KINDS, SEVERAL, SINGLE_KINDS
from rlkit.registry import from_import_path

BASE = "run_defaults"
NONE = "none"
"""What Hydra chooses for no part of an optional kind: it takes no null."""
_PLAIN = re.compile(r"null|true|false|[-+.\d]*")
_NO_NAME = re.compile(r"\[.*|\{\s*name\s*:.*", re.DOTALL)
FLAGS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run"),
    *("--multirun", "--shell-completion", "--config-path", "--config-name", "--config-dir"),
    *("--experimental-rerun", "--info"),
)
"""Hydra's own long options."""
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir")
"""Hydra's folders, which rlkit has a setting of its own for."""
_OVERRIDE = re.compile(r"^\+{0,2}(\w+)=(.*)$", re.DOTALL)


def run_label() -> str:
    """What the run folder is named after: the composition, or "sweep" for several runs."""
    if not HydraConfig.initialized() or HydraConfig.get().mode == RunMode.MULTIRUN:
        return "sweep"
    return str(HydraConfig.get().runtime.choices["algorithm"])


_stored: dict[tuple[str, str], PartInfo] = {}
"""The parts that were put into Hydra's ConfigStore, by kind and name."""


def store_groups() -> None:
    """Put every registered part and the run's own defaults into Hydra's ConfigStore.

    What lies there already is not put there again, which takes Hydra a tenth of a second.
    """
    OmegaConf.register_new_resolver("run_label", run_label, replace=True)
    store = ConfigStore.instance()
    known = catalog()
    store.store(name=BASE, node=known.run_node)
    for kind in OPTIONAL_KINDS:
        store.store(group=kind, name=NONE, node={}, package="_global_")
    for kind, parts in known.parts.items():
        there = store.repo.get(kind, {})
        for name, part in parts.items():
            if f"{name}.yaml" not in there or _stored.get((kind, name)) is not part:
                store.store(group=kind, name=name, node=part.node, package=part.section)
                _stored[kind, name] = part


def register_user_parts(arguments: Sequence[str]) -> list[str]:
    """Import the plugins and import paths named in command line overrides, before Hydra composes.

    `plugins=[a.b,./c.py]` imports modules; `kind=a.b:Class` (also in a list) becomes `kind=<name>`,
    and its module joins the plugins so that a remote worker finds it. Returns the arguments for
    Hydra. Raises UserError for a plugin that cannot be imported and for what `check_override`
    rejects.
    """
    out: list[str] = []
    plugins: list[str] = []
    for argument in map(unpasted, arguments):
        check_override(argument)
        match = _OVERRIDE.match(argument)
        key, value = (match[1], match[2]) if match else ("", "")
        if key == "plugins":
            plugins += map(_anywhere, _items(value))
        elif key == "tools":
            paths = [item.rpartition(":") for item in _items(value)]
            plugins += [_anywhere(module) for module, _, _ in paths if module]
            named = ",".join(quoted(f"{_anywhere(m)}{c}{name}") for m, c, name in paths)
            out.append(f"tools=[{named}]")
        elif key in OPTIONAL_KINDS and value == "null":
            out.append(f"{key}={NONE}")
        elif key in OPTIONAL_KINDS and value.startswith("["):
            out += _together(key, [_register(key, item, plugins) for item in _items(value)])
        elif (
            key in (*SINGLE_KINDS, *OPTIONAL_KINDS, *LIST_KINDS)
            and ":" in value
            and not value.startswith("{")
        ):
            chosen = ",".join(quoted(_register(key, item, plugins)) for item in _items(value))
            out.append(f"{key}=[{chosen}]" if key in LIST_KINDS else f"{key}={chosen}")
        else:
            out.append(argument)
    for plugin in plugins:
        load_plugin(plugin)
    if plugins:
        unique = list(dict.fromkeys(plugins))
        out.append("plugins=[" + ",".join(quoted(p) for p in unique) + "]")
    return out


def check_override(argument: str) -> None:
    """Reject a malformed override if Hydra's own error would name none of the user's keys."""
    key, equals, value = argument.lstrip("+~").partition("=")
    if argument.startswith("-"):
        _check_flag(argument)
    elif argument.startswith("~"):
        _check_removal(key)
    elif equals and not key.strip():
        raise UserError(f"'{argument}' is not an override: write key=value")
    elif key in FOLDERS:
        raise UserError(f"{key} is not used: set output_dir, the run folder, in its place")
    elif equals:
        _check_path(key, value)
        _check_form(key, value)
        _check_choice(key, value)


def _check_flag(argument: str) -> None:
    if argument.startswith("--") and argument.partition("=")[0] not in FLAGS:
        raise UserError(
            f"there is no option {argument}: settings are written without dashes, such as "
            "train.steps=3"
        )


def _check_removal(key: str) -> None:
    if key in (*SINGLE_KINDS, *catalog().sections(), "algorithm"):
        raise UserError(f"~{key} is not possible: no run is without {key}")


def _check_path(key: str, value: str) -> None:
    """Refuse a file of the user's as a part, without the name of what is meant in it."""
    if key not in KINDS or value.startswith(("{", "$")):
        return
    for item in _items(value):
        if ":" not in item and (item.endswith(".py") or "/" in item):
            named = f"[{item}:<name>]" if key in LIST_KINDS else f"{item}:<name>"
            raise UserError(
                f"{key}={value} does not say which part of the file: write {key}={named}, with "
                "the name of a class or function"
            )


def _check_form(key: str, value: str) -> None:
    """Refuse a plain value in place of a section, of `stages`, and what is a sweep's file."""
    keys = catalog().sections().get(key)
    if keys and not value.startswith(("{", "$")):
        raise UserError(
            f"{key}={value} is not valid: {key} is a section, set its keys, such as "
            f"{key}.{keys[0]}=..."
        )
    if key == "stages" and not value.startswith(("[", "$")):
        raise UserError(
            f"stages={value} is not valid: write a list, such as stages=[{{steps: 20}}]"
        )
    if key == "sweep":
        raise UserError("sweep is not a setting of a run: start it with `wandb sweep <its file>`")


def _check_choice(key: str, value: str) -> None:
    """Reject a value that is not the name of a part."""
    if key in LIST_KINDS and _PLAIN.fullmatch(value):
        raise UserError(f"{key}={value} is not valid: write {key}=[<name>], or {key}=[] for none")
    listed = _items(value) if key in LIST_KINDS and value.count("[") == 1 else []
    if twice := next((item for item in listed if listed.count(item) > 1), None):
        raise UserError(f"{key}={value} names '{twice}' twice; name each {key} once")
    kind, _, field = key.partition(".")
    if kind in OPTIONAL_KINDS and not field and (value == "null" or value.startswith("[")):
        return
    if kind not in (*SINGLE_KINDS, *OPTIONAL_KINDS, "algorithm") or field not in ("", "name"):
        return
    if field or _PLAIN.fullmatch(value) or _NO_NAME.fullmatch(value):
        raise UserError(f"{key}={value} is not valid: choose exactly one {kind}, as {kind}=<name>")


def _register(kind: str, item: str, plugins: list[str]) -> str:
    if ":" not in item:
        return item
    plugins.append(_anywhere(item.rpartition(":")[0]))
    return from_import_path(kind, item).name


def _together(kind: str, named: Sequence[str]) -> list[str]:
    """The overrides that choose one part of a kind, or several as one."""
    if len(named) == 1:
        return [f"{kind}={quoted(named[0])}"]
    listed = ", ".join(f"{name}: {{}}" for name in named)
    return [f"+{kind}.name={SEVERAL}", f"+{kind}.of={{{listed}}}"]


def _anywhere(plugin: str) -> str:
    """A plugin's file by its whole path, so that a command in another folder finds it too."""
    return str(Path(plugin).expanduser().resolve()) if plugin.endswith(".py") else plugin


def _items(value: str) -> list[str]:
    return [
        part.strip().strip("'\"") for part in value.strip().strip("[]").split(",") if part.strip()
    ]


def import_before_compose(arguments: Sequence[str]) -> list[str]:
    """Everything Hydra needs before it composes.

    Put the working directory on the path, register user parts, store the groups.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    rewritten = register_user_parts(arguments)
    store_groups()
    return rewritten
