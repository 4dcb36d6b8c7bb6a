"""Held-out pass@1 of the embedded model with a calculator and without it, over seeds.

    python benchmarks/calculator.py --seeds 10 --processes 2

Seed i warms up base i and runs with seed i. With the tool and without it the problems, the base and
the number of responses are the same. Each run evaluates held-out problems before and after training
only. Processor time is that of the whole process: start-up, training and both evaluations, but not
the warm-up of the base. On a busy machine it tells more than seconds do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import RESULTS, ROOT, command, read
from records import Records, Table, judged, machine, measured_on, with_range

WITH, WITHOUT = "with the calculator", "without"
WAYS = {WITH: "environment=calculator", WITHOUT: "+experiment=without_calculator"}
SEEDS = 10
"""How many a claim needs of each way."""
BEFORE, AFTER, SECONDS, SHARE = 0.4, 0.85, 90.0, 0.9
"""Targets: at most this before, at least this after in that share of the seeds, in so long."""
WARM_UP = "from rlkit.models.embedded_calls import calls_model_dir as d; d({seed}, progress=False)"


def measured(words: Sequence[str], seed: int) -> dict[str, Any]:
    """The figures of one run, whose base exists before its time is taken."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", WARM_UP.format(seed=seed)], cwd=ROOT, env=env, check=True)
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "said").open("w+") as said:
        seeds = (f"seed={seed}", f"model.base_seed={seed}")
        line = command(*words, *seeds, out=Path(folder) / "run")
        child = subprocess.Popen(line, cwd=ROOT, env=env, stdout=said, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(words)}, seed {seed}: {said.read()}")
        done = read(Path(folder) / "run")
    before, after = (row for row in done.metrics if "eval/pass@1" in row)
    return {
        "seed": seed,
        "before": before["eval/pass@1"],
        "after": after["eval/pass@1"],
        "greedy": after["eval/greedy"],
        "steps": len(done.steps),
        "responses": done.steps[-1]["rollouts/total"],
        "calls": [step.get("tools/calls", 0.0) for step in done.steps],
        "seconds": sum(step["time/step"] for step in done.steps),
        "cpu": used.ru_utime + used.ru_stime,
    }


def judgments(name: str, runs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The rows of the targets: what was measured, the target, and whether it is met."""
    highest = max(each["before"] for each in runs)
    reached = sum(each["after"] >= AFTER for each in runs)
    cpu = statistics.median(each["cpu"] for each in runs)
    found = {
        "highest base": (f"{highest:.3f}", judged(highest, BEFORE, at_most=True)),
        f"share of seeds with at least {AFTER:g} after": (
            f"{reached} of {len(runs)}",
            judged(reached / len(runs), SHARE, at_most=False),
        ),
        "processor seconds, median": (f"{cpu:.0f}", judged(cpu, SECONDS, at_most=True)),
    }
    return [[name, what, value, *rest] for what, (value, rest) in found.items()]


def tables(records: Records) -> list[Table]:
    """A row for each composition and way, and a row of the targets for each with the tool."""
    cases = {name: case for name, case in records.cases.items() if case["runs"].get("runs")}
    if not cases:
        return []
    rows, targets = [], []
    for name, case in cases.items():
        runs = case["runs"]["runs"]

        def of(key: str, runs: list[dict[str, Any]] = runs) -> str:
            return with_range([float(each[key]) for each in runs])

        calls = [statistics.median(each["calls"][place] for each in runs) for place in (0, -1)]
        rows.append(
            [
                *(name, str(len(runs)), of("before"), of("after"), of("greedy")),
                f"{calls[0]:.2f} to {calls[1]:.2f}" if any(calls) else "none",
                *(of("steps"), of("responses"), of("seconds"), of("cpu")),
            ]
        )
        if name.endswith(WITH):
            targets += judgments(name, runs)
    head = ["composition", "seeds", "before", "after", "greedy after", "calls a response"]
    head += ["steps", "responses", "seconds of training", "processor seconds"]
    about = [
        *measured_on(next(iter(cases.values()))),
        "Medians and ranges of seeds. Seconds are those of training steps on this machine, which "
        "was shared; processor seconds are those of the whole run with its start and evaluations.",
    ]
    return [
        Table(title="With the calculator and without", about=about, head=head, rows=rows),
        Table(
            title="Targets of the calculator",
            about=["Of the seeds above."],
            head=["composition", "what", "measured", "target", "verdict"],
            rows=targets,
        ),
    ]


def missing(cases: Mapping[str, Any]) -> list[str]:
    """What was not run: in words, for each composition that was run in some way."""
    algorithms = dict.fromkeys(name.rpartition(", ")[0] for name in cases)
    known = {name: len(case["runs"].get("runs", ())) for name, case in cases.items()}
    names = [f"{algorithm}, {way}" for algorithm in algorithms for way in WAYS]
    counts = {name: known.get(name, 0) for name in names}
    return [f"{name}: {n} of {SEEDS} seeds" for name, n in counts.items() if n < SEEDS]


def parser() -> argparse.ArgumentParser:
    """The options."""
    out = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    out.add_argument("--algorithms", nargs="+", default=["grpo"])
    out.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    out.add_argument("--seeds", type=int, default=SEEDS)
    out.add_argument("--problems", type=int, default=500)
    out.add_argument("--processes", type=int, default=1)
    out.add_argument("--overrides", nargs="*", default=[], help="more words for every run")
    out.add_argument("--out", type=Path, default=RESULTS / "calculator.json")
    return out


def main() -> None:
    """Measure what is missing, then print the tables."""
    options = parser().parse_args()
    records = Records(options.out)
    often = [f"eval.problems={options.problems}", "eval.every=null", "checkpoint.every=null"]
    jobs = []
    for algorithm in options.algorithms:
        for way in options.ways:
            words = [f"algorithm={algorithm}", WAYS[way], *often, *options.overrides]
            case = records.case(f"{algorithm}, {way}", machine(1), {"words": words})
            known = {each["seed"] for each in case["runs"].setdefault("runs", [])}
            jobs += [(case, words, seed) for seed in range(options.seeds) if seed not in known]
    with ThreadPoolExecutor(options.processes) as pool:
        for (case, words, _), found in zip(
            jobs, pool.map(lambda job: measured(*job[1:]), jobs), strict=True
        ):
            case["runs"]["runs"].append(found)
            told = {key: round(value, 3) for key, value in found.items() if key != "calls"}
            print(" ".join(words[:2]), told, flush=True)
            records.save(tables(records))
    records.finish(tables(records))


if __name__ == "__main__":
    main()
