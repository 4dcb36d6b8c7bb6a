"""The library of a tracker, imported when a run starts."""

from __future__ import annotations

import importlib
from typing import Any

from rlkit.errors import UserError


def library(name: str, package: str) -> Any:
    """The module `name` of a PyPI package. Raises UserError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(
            f"tracker={name} needs the package {package}, which is not installed: "
            f"pip install {package}"
        ) from error
