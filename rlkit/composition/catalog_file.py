"""The catalog on disk: as long as nothing that it depends on has changed, no part is imported.

The file's name is a digest of the contents of every source file of rlkit, of its parts and of the
plug-ins that are entry points, of the installed distributions and of Python. So it cannot be stale:
after a change another file is looked for, and made by importing the parts once.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import secrets
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from rlkit.composition.catalog import Catalog, of_registry
from rlkit.config.cache import cache_home
from rlkit.plugins import PART_PACKAGES
from rlkit.registry import any_registered

HOME = Path(__file__).resolve().parents[2]
"""The folder that holds rlkit and the packages of parts."""
DISTRIBUTIONS = (".dist-info", ".egg-info")
KEPT = 4
"""Catalogs of an installation that stay: in some folders Python finds more distributions."""


def catalog() -> Catalog:
    """The catalog: of the registry once parts are imported, a user's too, else the kept one."""
    return of_registry() if any_registered() else kept()


@cache
def kept() -> Catalog:
    """The catalog from its file, which is written where it is missing.

    Where it cannot be written the parts are imported each time.
    """
    path = catalog_path()
    found = _read(path)
    if found is None:
        found = of_registry()
        with contextlib.suppress(OSError):  # a cache saves time, and is not needed
            _write(path, found)
    return found


def catalog_path() -> Path:
    """Where the catalog of the present sources is, or would be."""
    return cache_home() / f"{_prefix()}{digest()}.json"


def _prefix() -> str:
    """How the names of an installation's catalogs begin."""
    place = f"{HOME}\n{sys.prefix}\n{sys.version}"
    return f"catalog-{hashlib.sha256(place.encode()).hexdigest()[:8]}-"


def digest() -> str:
    """A number that changes whenever the catalog might."""
    total = hashlib.sha256()
    for path in source_files():
        contents = path.read_bytes()
        total.update(f"{path}\n{len(contents)}\n".encode())
        total.update(contents)
    total.update("\n".join(sorted(set(distributions()))).encode())
    return total.hexdigest()[:32]


def source_files() -> list[Path]:
    """Every source file that defines parts or says how they are described."""
    folders = [HOME / name for name in ("rlkit", *PART_PACKAGES)]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    points = importlib.metadata.entry_points(group="rlkit.plugins")
    packages = sorted({point.module.partition(".")[0] for point in points})
    return files + [path for package in packages for path in _files_of(package)]


def _files_of(package: str) -> Iterator[Path]:
    """The source files of a top-level package or module, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None:  # importing it will say so
        return
    folders = spec.submodule_search_locations
    if folders is None and spec.origin is not None:
        yield Path(spec.origin)
    for folder in folders or ():
        yield from sorted(Path(folder).rglob("*.py"))


def distributions() -> Iterator[str]:
    """The folders of installed distributions' metadata, whose names hold the versions.

    Beside each, for a plug-in, the file that names its entry points.
    """
    for folder in sys.path:
        with contextlib.suppress(OSError):  # an entry of the path need not exist
            yield from (name for name in os.listdir(folder or ".") if name.endswith(DISTRIBUTIONS))
    for point in importlib.metadata.entry_points(group="rlkit.plugins"):
        yield f"{point.name}={point.value}"


def _read(path: Path) -> Catalog | None:
    try:
        return Catalog.from_json(path.read_text(encoding="utf-8"))
    except OSError:  # not there yet
        return None
    except (ValueError, LookupError, TypeError, AttributeError):  # damaged: it is made anew
        return None


def _write(path: Path, made: Catalog) -> None:
    """Write the file by one rename, and remove the oldest of this installation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        unfinished.write_text(made.to_json(), encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    files = path.parent.glob(f"{_prefix()}*.json")
    for old in sorted(files, key=lambda file: file.stat().st_mtime_ns)[:-KEPT]:
        old.unlink(missing_ok=True)
