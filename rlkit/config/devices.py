"""Devices by name, refused if the machine does not have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlkit.errors import UserError

if TYPE_CHECKING:  # configurations are read without torch
    import torch

DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"
"""What a setting of a device may be."""


def device_of(name: str, setting: str) -> torch.device:
    """`auto` is CUDA if available.

    Raises UserError for a device that does not exist; `setting` is what the user called it.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"{setting}={name}, but this machine has no CUDA device; set {setting}=cpu or auto"
        )
    index = torch.device(name).index or 0
    if name.startswith("cuda") and index >= torch.cuda.device_count():
        raise UserError(
            f"{setting}={name}, but there are only {torch.cuda.device_count()} CUDA devices"
        )
    return torch.device(name)
