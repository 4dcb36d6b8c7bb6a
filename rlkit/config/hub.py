"""Names of models and data sets: which are paths, and whether the Hugging Face hub has the others.

The hub is asked once, without the libraries' retries: a name with a typo, or a machine without a
network, is noticed at once.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

from rlkit.errors import UserError, suggest

INSIDE = "pkg://"
PATIENCE = 10.0
"""Seconds that the hub may take to answer."""


def looks_like_path(name: str) -> bool:
    """Whether a name can only be a path: it begins with . / or ~, or has two slashes or more."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def packaged(name: str, key: str) -> str:
    """The path that a name stands for: `pkg://package/file` inside an installed package, `~/file`.

    Raises UserError, with the setting it was given as, if the package is not installed.
    """
    if not name.startswith(INSIDE):
        return str(Path(name).expanduser()) if name.startswith("~") else name
    package, _, inner = name.removeprefix(INSIDE).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{key}={name}: the Python package '{package}' is not installed")
    return str(Path(spec.submodule_search_locations[0]) / inner)


@contextmanager
def from_hub(kind: Literal["model", "dataset"], name: str, called: str) -> Generator[None]:
    """Loads of `name` in this context come from the hub, or from the cache alone if it is offline.

    Raises UserError, with what the user `called` it, if the hub does not have it or hides it.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    reachable = not constants.HF_HUB_OFFLINE
    try:
        if reachable:
            ask = HfApi().model_info if kind == "model" else HfApi().dataset_info
            ask(name, timeout=PATIENCE)
    except HFValidationError:
        raise UserError(f"{called} is neither a path that exists nor a name of the hub") from None
    except HfHubHTTPError as error:
        code = getattr(error.response, "status_code", None)
        if code in (401, 403, 404):
            raise UserError(
                f"{called} does not exist here, and the Hugging Face hub has no such {kind} or "
                "hides it: log in with `hf auth login` if it is private or gated"
            ) from None
        reachable = False
    except Exception as error:
        if not is_network_error(error):
            raise
        reachable = False
    with nullcontext() if reachable else offline():
        yield


def is_network_error(error: Exception) -> bool:
    """Whether an error means that the hub could not be reached."""
    return isinstance(error, OSError) or type(error).__module__.startswith("httpx")


@contextmanager
def offline() -> Generator[None]:
    """The libraries use their caches alone."""
    from huggingface_hub import constants

    places: list[Any] = [constants]
    if "datasets" in sys.modules:  # a model has no need of it
        places.append(sys.modules["datasets"].config)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def no_folder(folder: Path) -> str:
    """Why there is no model's folder at a path that is none."""
    if folder.exists():
        return "that is a file; give the folder of the model"
    if not folder.parent.is_dir():
        return f"there is no folder {folder.parent}"
    there = sorted(each.name for each in folder.parent.iterdir() if each.is_dir())
    return f"there is no such folder.{suggest(folder.name, there)}"
