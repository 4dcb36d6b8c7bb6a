"""Runs through the command line, for the benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Run:
    """What a run wrote."""

    metrics: list[dict[str, Any]]
    """The lines of metrics.jsonl."""
    config: dict[str, Any]

    def values(self, key: str, over: str = "step") -> list[list[float]]:
        """[over, value] of every line that has the key."""
        return [[row[over], row[key]] for row in self.metrics if key in row]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The lines of training steps."""
        return [row for row in self.metrics if "policy/lr" in row]


def run(*arguments: str, seed: int) -> Run:
    """`python -m rlkit.run <arguments>` with one thread, base and run of one seed.

    Stops the benchmark with what a run that fails says.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        seeds = (f"seed={seed}", f"model.base_seed={seed}")
        done = subprocess.run(
            [sys.executable, "-m", "rlkit.run", *arguments, *seeds, f"output_dir={out}"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}, seed {seed}: {done.stderr}")
        lines = (out / "metrics.jsonl").read_text().splitlines()
        config = yaml.safe_load((out / "config.yaml").read_text())
    return Run([json.loads(line) for line in lines], config)
