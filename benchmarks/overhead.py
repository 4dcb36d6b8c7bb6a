"""The share of a step of the embedded model that is not generation, forward or update.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --quick

Runs the default composition and shows what its steps spend their time on, by time/* of
metrics.jsonl, the median over the steps and runs. The rest is everything that no timer counts. It
is split by one more run under cProfile, into the functions that a step calls outside generation,
forward and update. A profile makes Python code slower and leaves tensor operations as they are, so
its shares are upper bounds; they show what to look at. The target is at most 10 % outside
generation, forward and update: this model is so small that nearly everything else costs more of a
step here than in any real run.
"""

from __future__ import annotations

import argparse
import os
import pstats
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import RESULTS, ROOT, command, read, run
from records import Case, Records, Table, judged, listed, machine, measured_on

WARM_UP = 3
"""Steps that are not counted."""
TIMERS = ("rollout", "forward", "update", "reward", "sync")
WORK = TIMERS[:3]
"""What a step is for: generation, forward and update."""
TARGET = 0.10
STEP = ("rlkit/training/trainer.py", "_train_step")
COLLECT = ("rlkit/training/collect.py", "collect")
INSIDE = ("_collect", "completed", "_prepare", "_update", "elapsed")
"""Functions that hold generation, forward and update, or that only read the clock."""

Function = tuple[str, str]
"""The end of a file's path, and a name in it."""


def shares(step: Mapping[str, Any]) -> dict[str, float]:
    """What a step spent its time on, by timer, and the `rest` that no timer counts."""
    total = step["time/step"]
    found = {name: step[f"time/{name}"] / total for name in TIMERS}
    return found | {"rest": 1 - sum(found.values())}


def overhead(found: Mapping[str, float]) -> float:
    """The share outside generation, forward and update."""
    return 1 - sum(found[name] for name in WORK)


def called_by(profile: Mapping[Any, Any], caller: Function) -> dict[str, float]:
    """Seconds in each function that a function calls, from `pstats.Stats.stats`."""
    found: dict[str, float] = {}
    for (file, _, name), (*_, callers) in profile.items():
        for (path, _, by), (*_, seconds) in callers.items():
            if path.endswith(caller[0]) and by == caller[1]:
                label = f"{Path(file).stem}.{name}" if file != "~" else name
                found[label] = found.get(label, 0.0) + seconds
    return found


def split(profile: Mapping[Any, Any]) -> dict[str, float]:
    """The share of a step in each function outside generation, forward and update."""
    (total,) = (
        seconds
        for (file, _, name), (_, _, _, seconds, _) in profile.items()
        if file.endswith(STEP[0]) and name == STEP[1]
    )
    found = called_by(profile, STEP) | called_by(profile, COLLECT)
    return {
        label: seconds / total
        for label, seconds in sorted(found.items(), key=lambda item: -item[1])
        if label.rpartition(".")[2] not in INSIDE
    }


def profiled(arguments: Sequence[str]) -> Mapping[Any, Any]:
    """The profile of a run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "profile"
        python, *rest = command(*arguments, out=Path(folder) / "run")
        done = subprocess.run(
            [python, "-m", "cProfile", "-o", str(found), *rest],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if done.returncode or not read(Path(folder) / "run").steps:
            raise SystemExit(f"the run under the profiler failed: {done.stderr}")
        stats: Any = pstats.Stats(str(found))
        profile: Mapping[Any, Any] = stats.stats
        return profile


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The medians over the steps of all runs, and the profile of one more."""
    arguments = (f"train.steps={options.steps}", *options.overrides)
    steps = [
        step
        for seed in range(options.repeats)
        for step in run(*arguments, seed=seed).steps[WARM_UP:]
    ]
    every = [shares(step) for step in steps]
    return {
        "steps": len(steps),
        "seconds": statistics.median(step["time/step"] for step in steps),
        "shares": {name: statistics.median(each[name] for each in every) for name in every[0]},
        "overhead": statistics.median(map(overhead, every)),
        "profile": split(profiled(arguments)),
    }


def tables_of(case: Case, rows: int) -> list[Table]:
    """What a step spends its time on, and `rows` of the profile."""
    (found,) = case["runs"]["measured"]
    goal = judged(found["overhead"], TARGET, at_most=True)
    parts = [[name, f"{share:.1%}", "", ""] for name, share in found["shares"].items()]
    parts.append([f"outside {', '.join(WORK)}", f"{found['overhead']:.1%}", *goal])
    about = [
        *measured_on(case),
        listed(case["settings"]),
        f"Medians of {found['steps']} steps, {found['seconds'] * 1e3:.0f} ms each.",
    ]
    head = ["part of a step", "share", "target", ""]
    step = Table(title="A step of the embedded model", about=about, head=head, rows=parts)
    profile = [[name, f"{share:.2%}"] for name, share in list(found["profile"].items())[:rows]]
    title = f"Outside {', '.join(WORK)}, under cProfile"
    about = ["Of one more run; a profile makes Python slower, so these are upper bounds."]
    return [step, Table(title=title, about=about, head=["function", "share"], rows=profile)]


def tables(records: Records, rows: int) -> list[Table]:
    """Two for each composition that was measured."""
    return [table for case in records.cases.values() for table in tables_of(case, rows)]


def main() -> None:
    """Measure, print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=6, help="functions of the profile to print")
    parser.add_argument("--quick", action="store_true", help="one run of 10 steps")
    parser.add_argument("--out", type=Path, default=RESULTS / "overhead.json")
    parser.add_argument("--overrides", nargs="*", default=[])
    options = parser.parse_args()
    if options.quick:
        options.steps, options.repeats = 10, 1
    words = " ".join(options.overrides) or "none"
    settings = {"runs": options.repeats, "steps": options.steps, "overrides": words}
    records = Records(options.out)
    found = {"measured": [measure(options)]}
    name = f"overrides {words}" + " (quick)" * options.quick
    records.put(name, machine(1), settings, found)
    records.finish(tables(records, options.rows))


if __name__ == "__main__":
    main()
