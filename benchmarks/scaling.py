"""Time and memory of a training step, and of each buffer, against what they may depend on.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --series responses group_size --device cuda --dtype bfloat16
    python benchmarks/scaling.py --buffers prioritized fifo --quick

Steps: runs of `python -m rlkit.run` on a random Llama, in which one thing is varied and the rest
stays: responses per step, response and prompt length in tokens, group size and replayed share at
the same number of responses, and references of the anchor. The vocabulary is large and the model
random, so that hardly a response ends before its limit. Buffers: a step's calls on every registered
buffer that reads no file, in memory, filled with so many groups under settings by which none
leaves.

Each series is fitted by a line, value = slope x + intercept; the table shows the largest distance
from it as a share of the measured value. A series or buffer replaces the one of its name in
benchmarks/results/scaling.json. The machine must be idle.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import RESULTS, ROOT, command, read
from records import Case, Records, Table, alike, judged, listed, machine, measured_on, significant
from scaling_buffers import measure, reads_a_file
from transformers import LlamaConfig, LlamaForCausalLM

from rlkit.models.embedded import make_tokenizer
from rlkit.registry import names

VOCABULARY = 4096
ANCHORS = (
    ("anchor=none",),
    ("anchor=base",),
    ("anchor=convex",),
    ("anchor=convex", "anchor.ema=1"),
)
"""By the number of references."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """The sizes of a step."""

    prompts: int = 8
    n: int = 8
    prompt: int = 16
    response: int = 32
    replay: float = 0.0
    references: int = 0

    def arguments(self) -> list[str]:
        """Settings of a run with these sizes."""
        buffer: tuple[str, ...] = ("buffer=on_policy",)
        if self.replay:
            buffer = ("buffer=fifo", f"buffer.replay_fraction={self.replay}", "buffer.window=4")
        return [
            *("algorithm=grpo", *buffer, *ANCHORS[self.references]),
            *(f"train.prompts_per_step={self.prompts}", f"rollout.num_generations={self.n}"),
            f"rollout.max_prompt_length={self.prompt}",
            f"rollout.max_completion_length={self.response}",
        ]


SERIES: dict[str, tuple[Sequence[float], Sequence[Point]]] = {
    "responses": ((32, 64, 128, 256), [Point(prompts=k) for k in (4, 8, 16, 32)]),
    "response_length": ((16, 32, 64, 128), [Point(response=k) for k in (16, 32, 64, 128)]),
    "prompt_length": ((16, 64, 128, 256), [Point(prompt=k) for k in (16, 64, 128, 256)]),
    "group_size": ((4, 8, 16, 32), [Point(prompts=64 // k, n=k) for k in (4, 8, 16, 32)]),
    "replay_fraction": ((0.0, 0.25, 0.5, 0.75), [Point(replay=k) for k in (0, 0.25, 0.5, 0.75)]),
    "references": ((0, 1, 2, 3), [Point(references=k) for k in range(4)]),
}
"""Name -> what is varied, and the step at each value."""
JUDGED, MOST_MS = 25_000, 5
"""Groups with which a buffer is judged, and the milliseconds that it may take then."""
STEPS, BUFFERS = "Steps", "Buffers"
GROUPS = (100, 1000, 10_000, JUDGED, 100_000)
QUICK_GROUPS = (100, 300, 1000)
BATCH = 20
"""Groups of a step whose buffer is measured."""


def fit(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """The line through the points by least squares, and the largest |y - line| / |y|."""
    slope, intercept = np.polyfit(x, y, 1)
    line = slope * np.array(x) + intercept
    worst = np.abs(np.array(y) - line) / np.maximum(np.abs(y), 1e-12)
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "largest_relative_residual": float(worst.max()),
    }


def write_model(folder: Path, width: int, layers: int) -> None:
    """A random Llama whose responses hardly ever end by themselves."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model: Any = LlamaForCausalLM
    model(shape).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def write_prompts(path: Path, tokens: int) -> None:
    """Different prompts of so many digits, a token each."""
    digits = random.Random(0)
    rows = [
        {"prompt": "".join(digits.choices("0123456789", k=tokens)), "answer": "0"}
        for _ in range(2000)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_steps(point: Point, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Medians over the steps of a run, in a process of its own: seconds by timer, peak MB."""
    write_prompts(folder / "prompts.jsonl", point.prompt)
    arguments = [
        *(f"model.name={folder / 'model'}", f"model.device={options.device}"),
        *(f"model.dtype={options.dtype}", "task=jsonl", f"task.path={folder / 'prompts.jsonl'}"),
        *("reward=exact", "eval.problems=1", "eval.every=null", "checkpoint.every=null"),
        *(f"train.steps={options.warm_up + options.steps}", "train.minibatches=1"),
    ]
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            command(*arguments, *point.arguments(), out=Path(out) / "run"),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(options.threads)},
        )
        if done.returncode:
            raise SystemExit(f"{point}: {done.stderr}")
        rows = read(Path(out) / "run").steps[options.warm_up :]
    timers = ("time/step", "time/rollout", "time/forward", "time/update", "memory/peak_mb")
    return {name: statistics.median(row[name] for row in rows) for name in timers}


def measure_steps(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A series of runs, with its lines."""
    values, points = SERIES[name]
    count = 3 if options.quick else len(values)
    found = [run_steps(point, folder, options) for point in points[:count]]
    x = list(values[:count])
    rows = [{"x": value, **row} for value, row in zip(x, found, strict=True)]
    return {"points": rows, "fit": [{key: fit(x, [row[key] for row in found]) for key in found[0]}]}


def groups_of(options: argparse.Namespace) -> tuple[int, ...]:
    """The numbers of groups that a buffer is measured with."""
    return QUICK_GROUPS if options.quick else GROUPS


def measure_buffer(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A buffer over growing numbers of groups, with its line of milliseconds."""
    sizes = groups_of(options)
    rows = [measure(name, groups, BATCH, options.repeats) for groups in sizes]
    return {"points": rows, "fit": [{"ms": fit(sizes, [row["ms"] for row in rows])}]}


def row_of_steps(name: str, case: Case) -> list[str]:
    """Seconds and memory at each value of what is varied, and their distance from a line."""
    points, (lines,) = case["runs"]["points"], case["runs"]["fit"]
    row = [name.replace("_", " "), ", ".join(f"{point['x']:g}" for point in points)]
    for key in ("time/step", "memory/peak_mb"):
        row.append(", ".join(significant(point[key]) for point in points))
        row.append(f"{lines[key]['largest_relative_residual']:.1%}")
    return row


def row_of_buffer(name: str, case: Case) -> list[str]:
    """Milliseconds by the number of groups, their growth, and the target if it applies."""
    points = case["runs"]["points"]
    times = {point["groups"]: point["ms"] for point in points}
    goal = judged(times[JUDGED], MOST_MS, at_most=True) if JUDGED in times else ["", ""]
    growth = points[-1]["ms"] - points[0]["ms"]
    size = f"{points[-1]['bytes_per_group']:.0f}"
    return [name, *map(significant, times.values()), significant(growth), size, *goal]


def table_of_steps(cases: Mapping[str, Case]) -> Table:
    """The series, one in a row."""
    name, first = next(iter(cases.items()))
    head = ["varied", "values", "seconds per step", "largest distance from a line"]
    head += ["peak memory, MB", "largest distance from a line"]
    about = [*measured_on(first), listed(first["settings"])]
    rows = [row_of_steps(name.partition(": ")[2], case) for name, case in cases.items()]
    return Table(title=name.partition(": ")[0], about=about, head=head, rows=rows)


def table_of_buffers(cases: Mapping[str, Case]) -> Table:
    """The buffers, one in a row."""
    name, first = next(iter(cases.items()))
    counts = [point["groups"] for point in first["runs"]["points"]]
    head = ["buffer", *(f"ms, {count:,} groups" for count in counts), "last less first, ms"]
    head += ["bytes per group", f"target at {JUDGED:,} groups, ms", ""]
    about = [*measured_on(first), listed(first["settings"])]
    rows = [row_of_buffer(name.partition(": ")[2], case) for name, case in cases.items()]
    return Table(title=name.partition(": ")[0], about=about, head=head, rows=rows)


def tables(records: Records) -> list[Table]:
    """One for the series, and one for the buffers, that were measured alike."""
    return [
        (table_of_steps if next(iter(cases)).startswith(STEPS) else table_of_buffers)(cases)
        for cases in alike(records.cases)
    ]


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--series", nargs="*", choices=list(SERIES), default=list(SERIES))
    parser.add_argument("--buffers", nargs="*", default=None, help="default: all that read no file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--quick", action="store_true", help="three small points a series")
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    sizes = {"threads": 1, "steps": 8, "warm-up": 4, "repeats": 21, "width": 64, "layers": 2}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    if options.quick:
        options.steps, options.warm_up, options.repeats = 2, 1, 3
    return options


def main() -> None:
    """Measure what is named, print a table and write the figures."""
    options = parsed()
    torch.set_num_threads(options.threads)
    given = options.buffers
    buffers = [b for b in names("buffer") if not reads_a_file(b)] if given is None else given
    if strange := [buffer for buffer in buffers if reads_a_file(buffer)]:
        raise SystemExit(f"{strange[0]} reads a file and cannot be filled; leave it out")
    records, on = Records(options.out), machine(options.threads, options.device)

    def keep(name: str, settings: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        records.put(name, on, settings, found)
        records.save(tables(records))
        print(f"{name}: measured", flush=True)

    quick = " (quick)" * options.quick
    keys = ("dtype", "steps", "warm_up", "width", "layers")
    sizes = {key.replace("_", " "): getattr(options, key) for key in keys}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", options.width, options.layers)
        for series in options.series:
            key = f"{STEPS}, {options.device} {options.dtype}{quick}: {series}"
            keep(key, sizes, measure_steps(series, folder, options))
    groups = " ".join(map(str, groups_of(options)))
    sizes = {"groups": groups, "groups per step": BATCH, "steps": options.repeats}
    for buffer in buffers:
        keep(f"{BUFFERS}{quick}: {buffer}", sizes, measure_buffer(buffer, options))
    records.finish(tables(records))


if __name__ == "__main__":
    main()
