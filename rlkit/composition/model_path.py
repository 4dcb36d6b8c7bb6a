"""Whether there is anything at the path of a model, before a command asks for anything else."""

from __future__ import annotations

import re
from pathlib import Path

from rlkit.config.hub import INSIDE, looks_like_path
from rlkit.errors import UserError, suggest_file
from rlkit.pages.folders import is_run
from rlkit.runs.checkpoint import list_checkpoints

_CHECKPOINT = re.compile(r"checkpoint-\d+")


def check_exists(model: str) -> None:
    """Raise UserError for a path at which there is no model; a name of the hub may be anything."""
    path = Path(model).expanduser()
    if path.is_dir():
        if is_run(path) and not (list_checkpoints(path) or (path / "config.json").is_file()):
            raise UserError(f"{model} is a run without a checkpoint; checkpoint.every writes them")
        return
    if path.exists() or model.startswith(INSIDE) or not _is_path(model, path):
        return
    if not path.parent.is_dir():
        raise UserError(f"{model} does not exist: there is no folder {path.parent}")
    newest = list_checkpoints(path.parent)[-1:] if _CHECKPOINT.fullmatch(path.name) else []
    if newest:
        raise UserError(f"{model} does not exist; the newest checkpoint of that run is {newest[0]}")
    there = sorted(each.name for each in path.parent.iterdir())
    raise UserError(f"{model} does not exist.{suggest_file(path.name, there)}")


def _is_path(model: str, path: Path) -> bool:
    """Whether it can be no name of the hub: by its form, or because it lies beside runs."""
    if looks_like_path(model) or model.endswith(("/", ".gguf")):
        return True
    if "/" not in model:
        return False
    if _CHECKPOINT.fullmatch(path.name):
        return True
    return path.parent.is_dir() and any(map(is_run, path.parent.iterdir()))
