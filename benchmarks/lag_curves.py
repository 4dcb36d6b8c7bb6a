"""OAPL and GRPO with rollout weights that lag: held-out pass@1 at L = 1, 10, 50 and 200.

    python benchmarks/lag_curves.py --processes 2

The two shipped experiments on the embedded default, 200 steps, five seeds of the base and the run
each; L is `rollout.sync_every`. With L = 200 every response is the base's. The table gives the
median, the worst and the best seed after training and the best evaluation on the way; the curves go
to benchmarks/results/lag_curves.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import RESULTS, run

OUT = RESULTS / "lag_curves.json"
EXPERIMENTS = ("oapl_lag", "grpo_lag")
Curve = list[list[float]]


def curve(job: tuple[str, int, int], steps: int, overrides: Sequence[str]) -> Curve:
    """[step, pass@1] at every evaluation of a run of (experiment, lag, seed)."""
    experiment, lag, seed = job
    chosen = (f"+experiment={experiment}", f"rollout.sync_every={lag}", f"train.steps={steps}")
    often = ("eval.every=10", "eval.problems=500", "checkpoint.every=null")
    return run(*chosen, *often, *overrides, seed=seed).values("eval/pass@1")


def line(name: str, curves: Sequence[Curve]) -> str:
    """A row of the table."""
    last = sorted(points[-1][1] for points in curves)
    best = statistics.median(max(value for _, value in points) for points in curves)
    before = statistics.median(points[0][1] for points in curves)
    return (
        f"{name:20} before {before:.3f}  after {statistics.median(last):.3f} "
        f"({last[0]:.3f} to {last[-1]:.3f})  best on the way {best:.3f}"
    )


def main() -> None:
    """Run every experiment with every lag and seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--lags", nargs="+", type=int, default=[1, 10, 50, 200])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--overrides", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    cells = list(itertools.product(EXPERIMENTS, options.lags))
    jobs = [(name, lag, seed) for name, lag in cells for seed in range(options.seeds)]
    with ThreadPoolExecutor(options.processes) as pool:
        found = list(pool.map(lambda job: curve(job, options.steps, options.overrides), jobs))
    table: dict[str, list[Curve]] = {}
    for (name, lag, _), points in zip(jobs, found, strict=True):
        table.setdefault(f"{name} L={lag}", []).append(points)
    for name, curves in table.items():
        print(line(name, curves))
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(table))


if __name__ == "__main__":
    main()
