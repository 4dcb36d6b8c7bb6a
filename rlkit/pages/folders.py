"""Which run folders are meant: runs, folders of runs (a sweep), and patterns such as `runs/*`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

from rlkit.errors import UserError

METRICS = "metrics.jsonl"


def is_run(folder: Path) -> bool:
    """Whether a run has logged in this folder, or is about to."""
    return (folder / METRICS).is_file()


def run_folders(given: Sequence[str | Path], *, links: bool = True) -> list[Path]:
    """The run folders that are meant, each once, in the order given.

    A folder that is no run stands for the runs in it: the jobs of a sweep, in their order; without
    `links` only for those that do lie in it.

    Raises UserError for something that neither is nor holds a run.
    """
    found: dict[Path, Path] = {}
    for each in given:
        inside = [path for folder in _matching(str(each)) for path in _runs_of(folder, links)]
        if not inside:
            raise UserError(_nothing(str(each)))
        for path in inside:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def leaves(path: Path, folder: Path) -> bool:
    """Whether a path in a folder is, or goes through, a link that leads out of the folder."""
    return not path.resolve().is_relative_to(folder.resolve())


def natural(path: Path) -> list[tuple[int, str]]:
    """A key that sorts 10 after 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _parts(path.name)]


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]


def _matching(given: str) -> list[Path]:
    if Path(given).exists():
        return [Path(given)]
    return sorted((path for path in map(Path, glob(given)) if path.is_dir()), key=natural)


def _runs_of(folder: Path, links: bool) -> Iterator[Path]:
    if is_run(folder):
        yield folder
        return
    inside = folder.iterdir() if folder.is_dir() else ()
    runs = (path for path in inside if links or not leaves(path, folder))
    yield from sorted(filter(is_run, runs), key=natural)


def _nothing(given: str) -> str:
    if not Path(given).exists():
        return f"{given} does not exist; name run folders, a folder of runs, or a pattern"
    return f"{given} holds no run: there is no {METRICS} in it, nor in the folders in it"
