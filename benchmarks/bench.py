"""Runs through the command line, for the benchmarks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlkit.errors import UserError
from rlkit.runs.records import read_run

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Run:
    """What a run wrote."""

    metrics: Sequence[Mapping[str, Any]]
    """The lines of metrics.jsonl."""
    config: Mapping[str, Any]

    def values(self, key: str, over: str = "step") -> list[list[float]]:
        """[over, value] of every line that has the key."""
        return [[row[over], row[key]] for row in self.metrics if key in row]

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """The lines of training steps."""
        return [row for row in self.metrics if "policy/lr" in row]


def command(*arguments: str, out: Path) -> list[str]:
    """`python -m rlkit.run <arguments>` into a folder."""
    return [sys.executable, "-m", "rlkit.run", *arguments, f"output_dir={out}"]


def status_of(call: Callable[[], int | None]) -> int:
    """The exit status of a script: a mistake of its user is one line and 2."""
    try:
        return call() or 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def read(out: Path) -> Run:
    """The run in a folder."""
    found = read_run(out)
    return Run(found.records, found.config)


def run(*arguments: str, seed: int, base_seed: int | None = None, out: Path | None = None) -> Run:
    """`python -m rlkit.run <arguments>` with one thread.

    The base has the run's seed unless it is given one; the run folder stays if it is given. Stops
    the benchmark with what a run that fails says.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = out or Path(folder) / "run"
        base = seed if base_seed is None else base_seed
        seeds = (f"seed={seed}", f"model.base_seed={base}")
        done = subprocess.run(
            command(*arguments, *seeds, out=place),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}, seed {seed}: {done.stderr}")
        return read(place)
