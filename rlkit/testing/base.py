"""What every part must do, and the helpers of the contract kit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlkit.interfaces import Part, State
from rlkit.runs.checkpoint import load_tree, save_tree


def require(holds: object, sentence: str) -> None:
    """Raise AssertionError with the sentence unless it holds."""
    if not holds:
        raise AssertionError(sentence)


def close(expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Whether tensors agree element by element, to 1e-9 of the largest."""
    return all(
        torch.allclose(
            a, b, rtol=1e-9, atol=1e-9 * max(1.0, float(a.abs().max()) if a.numel() else 0)
        )
        for a, b in zip(expected, found, strict=True)
    )


def stored(state: State) -> State:
    """The state as a checkpoint would give it back."""
    with tempfile.TemporaryDirectory() as folder:
        save_tree(Path(folder) / "state", state)
        return load_tree(Path(folder) / "state")


def settings_survive_the_config_file(part: Part[Any]) -> None:
    """The config rebuilt from its JSON is the same config."""
    config = part.config
    again = type(config)(**json.loads(config.model_dump_json()))
    require(again == config, f"the settings change in a config file: {config!r} became {again!r}")


def every_setting_is_documented(part: Part[Any]) -> None:
    """Each field has a docstring."""
    for name, field in type(part.config).model_fields.items():
        require(field.description, f"the setting '{name}' has no docstring under it")


EVERY = (settings_survive_the_config_file, every_setting_is_documented)
