"""Responses per second with generation and training in parallel, against taking turns.

    python benchmarks/async_throughput.py --steps 60 --repeats 3

Two processes, pinned to one core each, generate and train on the embedded model. The synchronous
baseline is the same two processes taking turns (mode async with max_staleness=0); the table also
has one process on both cores (mode sync). With g and t the seconds that a step generates and trains
when they take turns, (g + t) / max(g, t) is the most that running them at once can gain; choose
`--prompts` so that g and t are alike. The loss is GRPO's on the ratio to the policy that sampled;
the other form needs one more forward of each response that is a step old. The machine must be idle.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import ROOT, command, read

TURNS = ("rollout.mode=async", "rollout.max_staleness=0", "rollout.deterministic=true")
WARM_UP = 5
"""Steps that are not counted."""
TRAINER, GENERATOR = 0, 1
"""The cores."""


def children(pid: int) -> list[int]:
    """Processes started by a process."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def pin(process: subprocess.Popen[bytes]) -> None:
    """Keep a run on the trainer's core, and the process it starts on the generator's."""
    os.sched_setaffinity(process.pid, {TRAINER})
    pinned = False
    while process.poll() is None:
        for child in children(process.pid) if not pinned else ():
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"rlkit.rollout.worker" in command:
                os.sched_setaffinity(child, {GENERATOR})
                pinned = True
        time.sleep(0.05)


def measure(options: argparse.Namespace, arguments: Sequence[str], *, alone: bool) -> list[float]:
    """[responses per second, g, t] of a run; `alone` on both cores in one process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        process = subprocess.Popen(
            command(
                *("algorithm=grpo", "loss=grpo_behavior", "train.lr_scheduler_type=constant"),
                *("eval.problems=8", "eval.every=null", "checkpoint.every=null"),
                *(f"train.steps={options.steps + WARM_UP}", "train.minibatches=1"),
                *(f"train.prompts_per_step={options.prompts}", *arguments),
                f"train.updates_per_batch={options.passes}",
                out=out,
            ),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "2" if alone else "1"},
        )
        if not alone:
            pin(process)
        if process.wait():
            raise SystemExit("the run failed")
        steps = read(out).steps
    counted = steps[WARM_UP:]
    seconds = sum(row["time/step"] for row in counted)
    responses = steps[-1]["rollouts/total"] - steps[WARM_UP - 1]["rollouts/total"]
    rollout = sum(row["time/rollout"] for row in counted)
    return [responses / seconds, rollout / len(counted), (seconds - rollout) / len(counted)]


def main() -> None:
    """Measure in turn, so that a drift of the machine meets all alike, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--passes", type=int, default=1)
    options = parser.parse_args()
    runs = {
        "both cores, one process": ((), True),
        "taking turns": (TURNS, False),
        "ahead": (("rollout.mode=ahead",), False),
    }
    found: dict[str, list[list[float]]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, (arguments, alone) in runs.items():
            found[name].append(measure(options, arguments, alone=alone))
    for name, rows in found.items():
        print(f"{name:25} {statistics.median(row[0] for row in rows):8.1f} responses/s")
    g, t = (statistics.median(row[i] for row in found["taking turns"]) for i in (1, 2))
    speed = {name: statistics.median(row[0] for row in rows) for name, rows in found.items()}
    print(f"g {g:.3f} s, t {t:.3f} s, ceiling (g+t)/max(g,t) {(g + t) / max(g, t):.2f}")
    print(f"ahead / taking turns {speed['ahead'] / speed['taking turns']:.2f}")


if __name__ == "__main__":
    main()
