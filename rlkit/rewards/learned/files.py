"""The files of reward models, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.config.hub import looks_like_path, no_folder
from rlkit.errors import UserError

CALLED = "reward.model.path"
"""What messages call the setting that names the models."""
Shapes = Mapping[str, tuple[int, ...]]


def check_models(paths: Sequence[str]) -> None:
    """Check the folders among some names of models, without their weights.

    Raises UserError for one that is missing, holds no reward model, or no safetensors weights, and
    for several whose weights have no mean.
    """
    folders = [path for path in paths if check_folder(path)]
    shapes = {path: shapes_of(Path(path).expanduser()) for path in folders if len(folders) > 1}
    for path in folders[1:]:
        check_alike(folders[0], shapes[folders[0]], path, shapes[path])


def check_folder(path: str) -> bool:
    """Whether a name is that of a folder, which then holds a reward model. Raises UserError."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        if looks_like_path(path) or folder.exists():
            raise UserError(f"{CALLED}={path}: {no_folder(folder)}")
        return False
    if not (folder / "config.json").is_file():
        why = (
            "it holds an adapter alone; merge it into its model and save that"
            if (folder / "adapter_config.json").is_file()
            else "it has no config.json"
        )
        raise UserError(f"{CALLED}={path} is not a model folder: {why}")
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"{CALLED}={path} holds no weights as .safetensors, and other files are not read: they "
            "can run code; load the model where it comes from and save it with save_pretrained"
        )
    check_labels(path, config_of(path))
    return True


def config_of(path: str) -> Any:
    """The model's configuration. Raises UserError for one that cannot be read without its code."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise unreadable(path, error) from error


def unreadable(path: str, error: Exception) -> UserError:
    """The error for a model that cannot be loaded."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return UserError(f"{CALLED}={path} cannot be loaded: {reason[0]}")


def check_labels(path: str, config: Any) -> None:
    """Raise UserError unless the model has a single label."""
    if config.num_labels != 1:
        raise UserError(
            f"{CALLED}={path} has {config.num_labels} labels, and a reward model has one: train a "
            "sequence classification model with num_labels=1 (docs/rewards.md)"
        )


def shapes_of(folder: Path) -> Shapes:
    """The shape of each tensor in a folder's safetensors files, from their headers."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as opened:
                names = opened.keys()
                found |= {name: tuple(opened.get_slice(name).get_shape()) for name in names}
        except (SafetensorError, OSError) as error:
            raise unreadable(str(folder), error) from error
    return found


def check_alike(first: str, one: Shapes, second: str, other: Shapes) -> None:
    """Raise UserError unless two models have the same tensors, without which there is no mean."""
    for name in sorted({*one, *other}):
        if one.get(name) == other.get(name):
            continue
        has = [
            f"{path} has {'no ' + name if shape is None else f'{name} of shape {list(shape)}'}"
            for path, shape in ((first, one.get(name)), (second, other.get(name)))
        ]
        raise UserError(
            f"{CALLED}: the weights of these models have no mean, since {' and '.join(has)}; "
            "take finetunes of one and the same model"
        )
