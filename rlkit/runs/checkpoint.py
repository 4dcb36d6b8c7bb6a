"""Checkpoints without pickle: trees of tensors and plain values, and a manifest written last.

A checkpoint is a `save_pretrained` folder of the policy, a `state/` folder with everything else the
next step reads, and `manifest.json` with the sha256 of every file. It is written under a temporary
name and renamed; a folder without a manifest is not a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlkit.errors import UserError
from rlkit.interfaces import State

FORMAT = 3
MANIFEST = "manifest.json"
_TENSOR = "$tensor"
ABANDONED = "-abandoned"
"""How the name of a checkpoint goes on whose run has gone back to an older one."""
_NAME = re.compile(r"checkpoint-\d+")


def save_tree(path: Path, tree: State) -> None:
    """Write a tree as `<path>.safetensors` (its tensors) and `<path>.json` (everything else).

    Raises TypeError for a value that is not a tensor, number, string, boolean, None, list, tuple or
    dict with text keys.
    """
    text, tensors = _split(path.name, tree)
    save_file(_apart(tensors), path.with_suffix(".safetensors"))
    path.with_suffix(".json").write_text(text)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: on the CPU, contiguous, no two in the same memory.

    Only those for which that does not hold are copied: moments are large.
    """
    out: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        held = tensor.cpu().contiguous()
        if held.untyped_storage().data_ptr() in taken:
            held = held.clone()
        taken.add(held.untyped_storage().data_ptr())
        out[name] = held
    return out


def check_tree(name: str, tree: State) -> None:
    """Raise the TypeError that `save_tree` would raise, without writing or copying anything."""
    _split(name, tree)


def _split(name: str, tree: State) -> tuple[str, dict[str, Tensor]]:
    """A tree as JSON, and the tensors it refers to."""
    tensors: dict[str, Tensor] = {}

    def plain(value: Any, where: str) -> Any:
        if isinstance(value, Tensor):
            number = str(len(tensors))
            tensors[number] = value.detach()
            return {_TENSOR: number}
        if isinstance(value, dict):
            if not all(isinstance(key, str) and key != _TENSOR for key in value):
                raise TypeError(f"state {where}: keys must be text")
            return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(
            f"state {where} holds a {type(value).__name__}, which a checkpoint cannot keep"
        )

    return json.dumps(plain(tree, name)), tensors


def load_tree(path: Path) -> State:
    """Read what `save_tree` wrote."""
    tensors = load_file(path.with_suffix(".safetensors"))

    def rich(value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) == {_TENSOR}:
                return tensors[value[_TENSOR]]
            return {key: rich(item) for key, item in value.items()}
        return [rich(item) for item in value] if isinstance(value, list) else value

    tree: State = rich(json.loads(path.with_suffix(".json").read_text()))
    return tree


class CheckpointError(Exception):
    """A checkpoint could not be written."""


def write_checkpoint(folder: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Make `checkpoint-<step>`.

    `write` fills a temporary folder, which then gets its manifest and its name. Raises
    CheckpointError if that fails, with nothing left behind and older checkpoints unchanged.
    """
    temporary = folder / f".checkpoint-{step}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        _seal(temporary, step)
        return _put_in_place(temporary, folder / f"checkpoint-{step}")
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(reason_of(error)) from error


def reason_of(error: Exception) -> str:
    """A failure on one line: the system's reason, or what the code that failed says."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    known = isinstance(error, OSError | SafetensorError | UserError)
    return text if known else f"{type(error).__name__}: {text}"


def _seal(temporary: Path, step: int) -> None:
    """Write the manifest, last, and flush everything to disk; large files at the same time."""
    files = sorted(p for p in temporary.rglob("*") if p.is_file())
    names = [str(p.relative_to(temporary)) for p in files]
    with ThreadPoolExecutor() as threads:
        digests = dict(zip(names, threads.map(_flushed, files), strict=True))
    manifest = temporary / MANIFEST
    manifest.write_text(json.dumps({"format": FORMAT, "step": step, "files": digests}, indent=1))
    folders = [p for p in temporary.rglob("*") if p.is_dir()]
    for path in (*folders, manifest, temporary):
        _sync(path)


def _put_in_place(temporary: Path, final: Path) -> Path:
    """Give the folder its name; an existing one, from before a resume, is replaced."""
    if final.exists():
        old = final.with_name(f".{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        temporary.rename(final)
        _remove(old)
    else:
        temporary.rename(final)
    _sync(final.parent)
    return final


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run had begun to write or remove.

    A checkpoint that was moved aside gets its name back if the kill came before its successor's.
    """
    for old in folder.glob(".checkpoint-*.old"):
        final = folder / old.name.removeprefix(".").removesuffix(".old")
        if not final.exists() and (old / MANIFEST).is_file():
            old.rename(final)
    for path in (*folder.glob(".checkpoint-*.tmp"), *folder.glob(".checkpoint-*.old")):
        shutil.rmtree(path, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    named = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return [path for path in sorted(named, key=step_in_name) if (path / MANIFEST).is_file()]


def step_in_name(path: Path) -> int:
    """The step that a checkpoint is named after."""
    return int(path.name.removeprefix("checkpoint-"))


def saved_trees(folder: Path, name: str) -> list[str]:
    """A tree of the state as JSON, in all complete checkpoints of a run, abandoned ones too."""
    every = [*list_checkpoints(folder), *folder.glob(f"checkpoint-*{ABANDONED}*")]
    files = [path / "state" / f"{name}.json" for path in every]
    return [file.read_text() for file in files if file.is_file()]


def newest_in(folder: str) -> str:
    """The newest checkpoint of a run folder; what is no run folder stays as it is."""
    found = list_checkpoints(Path(folder).expanduser())
    return str(found[-1]) if found else folder


def checkpoint_step(path: Path) -> int:
    """The training step after which it was written.

    Raises UserError if its files do not match its manifest.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a complete checkpoint: its {MANIFEST} cannot be read"
        ) from error
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path} was written by another version of rlkit, and this one cannot continue it; "
            "it can evaluate it: rlkit eval"
        )
    for name, digest in manifest["files"].items():
        if not (path / name).is_file() or _sha256(path / name) != digest:
            raise UserError(
                f"{path} is damaged: {name} is missing or changed; remove that checkpoint folder"
            )
    step: int = manifest["step"]
    if _NAME.fullmatch(path.name) and step_in_name(path) != step:
        raise UserError(f"{path} is damaged: its {MANIFEST} names step {step}")
    return step


def prune(folder: Path, keep: int, best: int | None = None) -> None:
    """Remove all but the newest `keep` checkpoints and the one of step `best`.

    A checkpoint is renamed before it is removed, so that none is ever incomplete.
    """
    for path in list_checkpoints(folder)[:-keep]:
        if path.name != f"checkpoint-{best}":
            old = path.with_name(f".{path.name}.old")
            path.rename(old)
            _remove(old)


def _remove(old: Path) -> None:
    """Remove a checkpoint that has lost its name."""
    shutil.rmtree(old, ignore_errors=True)


def _flushed(path: Path) -> str:
    """The digest of a file that is on the disk by then."""
    _sync(path)
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
