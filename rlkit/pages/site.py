"""What the live server shows: the runs it was given, as they are now."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock

from rlkit.errors import UserError
from rlkit.pages import comparison_page
from rlkit.pages.figures import Question, compare
from rlkit.pages.folders import METRICS, leaves, run_folders
from rlkit.pages.report import page
from rlkit.runs.records import STEP, RunRecords, read_run

READ = (METRICS, "config.yaml", "overrides", "components.json", "completions")
"""What the pages read in a run folder."""
PART = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""A name of a part of a report that lies beside it."""
TAIL = 1 << 18
"""Bytes at the end of metrics.jsonl in which the last whole line is looked for."""
KEPT = 16
"""Pages kept until their runs log again."""
Script = Callable[[Path, str], str | None]


class AbsentError(Exception):
    """There is nothing under this address."""


class OutsideError(UserError):
    """A run holds links out of its folder."""


class Site:
    """The pages of the runs in the given folders.

    A run keeps its number, so that its address holds while others are added to a sweep.
    """

    def __init__(
        self, given: Sequence[str | Path], question: Question, script: Script | None = None
    ) -> None:
        """`script` makes a part of a run's report, given its folder and the part's name."""
        self.given = given
        self.question = question
        self.script = script
        self.numbers: dict[Path, int] = {}
        self._unused = itertools.count()
        self._lock = Lock()
        self._pages: dict[object, tuple[object, str]] = {}
        self._runs: dict[Path, tuple[object, RunRecords]] = {}
        self.folders()

    def folders(self) -> list[Path]:
        """The run folders that are there now. Raises UserError if there are none."""
        found = run_folders(self.given, links=False)
        for path in found:
            if path not in self.numbers:  # `next` gives no two threads the same number
                self.numbers.setdefault(path, next(self._unused))
        return found

    def run(self, number: int) -> str:
        """The page of a run. Raises AbsentError, or UserError if it cannot be read (yet)."""
        path = self._folder(number)
        return self._kept(path, [path], lambda: page(read_run(path), connect=True))

    def part(self, number: int, name: str) -> str:
        """A script beside a run's page. Raises AbsentError."""
        folder = self._folder(number)
        found = self.script(folder, name) if self.script and PART.fullmatch(name) else None
        if found is None:
            raise AbsentError
        return found

    def overview(self) -> str:
        """The comparison of all runs. Raises UserError if they cannot be compared (yet)."""
        paths = self.folders()
        for path in paths:
            check_links(path)
        links = {path: f"{self.numbers[path]}/report.html" for path in paths}
        return self._kept(None, paths, lambda: self._comparison(paths, links))

    def state(self, number: int | None = None) -> str:
        """How far a run is, or all of them, as JSON: what a page asks for again and again."""
        paths = self.folders() if number is None else [self._folder(number)]
        runs = f"{len(paths)} runs, " if number is None else ""
        words = f"{runs}step {max(map(last_step, paths)):g}"
        version = "-".join(f"{hash(stamp(path)) & 0xFFFFFFFF:08x}" for path in paths)
        return json.dumps({"version": version, "words": words})

    def _comparison(self, paths: Sequence[Path], links: Mapping[Path, str]) -> str:
        found = compare([self._read(path) for path in paths], self.question)
        return comparison_page.page(found, links, connect=True)

    def _read(self, path: Path) -> RunRecords:
        """What a comparison shows of a run, read once until the run logs again."""
        now, (known, run) = stamp(path), self._runs.get(path, (None, None))
        if run is None or known != now:
            run = comparison_page.slim(read_run(path), self.question.metric)
            self._runs[path] = now, run
        return run

    def _folder(self, number: int) -> Path:
        for path in self.folders():
            if self.numbers[path] == number:
                check_links(path)
                return path
        raise AbsentError

    def _kept(self, key: object, paths: Sequence[Path], make: Callable[[], str]) -> str:
        """A page, made anew once one of its runs has logged more."""
        now = tuple((path, stamp(path)) for path in paths)
        with self._lock:
            known, made = self._pages.pop(key, (None, ""))
            if known != now:
                made = make()
            self._pages[key] = now, made
            while len(self._pages) > KEPT:
                del self._pages[next(iter(self._pages))]
        return made


def stamp(run_dir: Path) -> tuple[int, int]:
    """What changes whenever a run logs: the size of its metrics, and when they were written."""
    try:
        found = (run_dir / METRICS).stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def last_step(run_dir: Path) -> float:
    """The step of the last whole line of the metrics; 0 if there is none."""
    try:
        with (run_dir / METRICS).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")[:-1]
        return float(json.loads(lines[-1])[STEP])
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return 0.0


def check_links(run_dir: Path) -> None:
    """Raise OutsideError if what the pages read of a run is, or holds, a link out of its folder."""
    paths = [run_dir / name for name in READ]
    if paths[-1].is_dir():
        with os.scandir(paths[-1]) as inside:
            paths += [Path(entry) for entry in inside if entry.is_symlink()]
    for path in paths:
        if leaves(path, run_dir):
            raise OutsideError(f"{path} is a link out of {run_dir}, and is not followed")
