"""What Hydra composes from: every registered part as a config group option, and the configs folder.

A default is written once, in the part's Config; Hydra gets it from the registry through the
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

import rlkit
from rlkit.compose import LISTS, SINGLE
from rlkit.config import RunConfig
from rlkit.registry import KINDS, Entry, entry, from_import_path, import_plugin, names

BASE = "run_defaults"
OUTPUT_DIR = "runs/${run_label:}-${now:%Y%m%d-%H%M%S-%f}"
_OVERRIDE = re.compile(r"^\+{0,2}(\w+)=(.*)$", re.DOTALL)


def configs_folder() -> Path:
    """The shipped configs: beside the package in a checkout, inside it in a wheel."""
    package = Path(rlkit.__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def run_label() -> str:
    """What the run folder is called after: the composition, or "sweep" for several runs."""
    if not HydraConfig.initialized() or HydraConfig.get().mode == RunMode.MULTIRUN:
        return "sweep"
    return str(HydraConfig.get().runtime.choices["algorithm"])


def node(found: Entry) -> dict[str, object]:
    """A part's name and default settings as a config node."""
    return {"name": found.name, **found.config().model_dump(mode="json")}


def store_groups() -> None:
    """Put every registered part and the run's own defaults into Hydra's ConfigStore."""
    OmegaConf.register_new_resolver("run_label", run_label, replace=True)
    store = ConfigStore.instance()
    base = RunConfig(output_dir=OUTPUT_DIR).model_dump(mode="json")
    store.store(name=BASE, node=base)
    for kind in KINDS:
        for name in names(kind):
            package = f"{kind}.{name}" if kind in LISTS else kind
            store.store(group=kind, name=name, node=node(entry(kind, name)), package=package)


def register_user_parts(arguments: Sequence[str]) -> list[str]:
    """Import the plugins and import paths named in command line overrides, before Hydra composes.

    `plugins=[a.b,./c.py]` imports modules; `kind=a.b:Class` (also in a list) becomes `kind=<name>`,
    and its module joins the plugins so that a remote worker finds it. Returns the arguments for
    Hydra.
    """
    out: list[str] = []
    plugins: list[str] = []
    for argument in arguments:
        match = _OVERRIDE.match(argument)
        key, value = (match[1], match[2]) if match else ("", "")
        if key == "plugins":
            plugins += _items(value)
        elif key in (*SINGLE, *LISTS) and ":" in value and not value.startswith("{"):
            chosen = ",".join(_quote(_register(key, item, plugins)) for item in _items(value))
            out.append(f"{key}=[{chosen}]" if key in LISTS else f"{key}={chosen}")
        else:
            out.append(argument)
    for plugin in plugins:
        import_plugin(plugin)
    if plugins:
        unique = list(dict.fromkeys(plugins))
        out.append("plugins=[" + ",".join(_quote(p) for p in unique) + "]")
    return out


def _register(kind: str, item: str, plugins: list[str]) -> str:
    if ":" not in item:
        return item
    plugins.append(item.rpartition(":")[0])
    return from_import_path(kind, item).name


def _items(value: str) -> list[str]:
    return [
        part.strip().strip("'\"") for part in value.strip().strip("[]").split(",") if part.strip()
    ]


def _quote(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"


def import_before_compose(arguments: Sequence[str]) -> list[str]:
    """Everything Hydra needs before it composes.

    The working directory on the path, user parts, the groups.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    rewritten = register_user_parts(arguments)
    store_groups()
    return rewritten
