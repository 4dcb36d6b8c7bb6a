"""Memory and time of log-probs and entropies: full logits, rlkit's blocks, TRL's blocks.

    python benchmarks/logprob.py --threads 2
    python benchmarks/logprob.py --device cuda --dtype bfloat16
    python benchmarks/logprob.py --quick

Each takes hidden states [tokens, hidden] and the weights of an output layer [vocabulary, hidden] to
the log-prob and entropy of each token, and back to the gradients of both. Memory is the peak over
what was held before, in a process of its own for each: of the process (Linux), or of the device's
allocator. It includes the gradients, which are also given by themselves. Time is the median of runs
in turn, so that a drift of the machine meets all alike; beside it the processor's time, which other
work changes less. A size replaces the one of its name in benchmarks/results/logprob.json.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench import RESULTS, ROOT
from records import Case as Measured
from records import (
    Records,
    Table,
    alike,
    constant,
    judged,
    listed,
    machine,
    measured_on,
    significant,
)
from torch import Tensor

from rlkit.models.logits import Projection
from rlkit.models.logprob import chunked_terms

OUT = RESULTS / "logprob.json"
VOCABULARIES = (32_000, 49_152, 151_936)
HIDDEN = (576, 1536)
SMALL: dict[str, Any] = {"vocabularies": [512], "hidden": [16], "tokens": 64}
QUICK = SMALL | {"timed_tokens": 64, "repeats": 1}
TRL_CHUNK = 8192
"""Columns of a block, the default of TRL's trainers."""
TARGETS = {"memory": 0.10, "time": 1.35, "time of TRL": 1.0}
MEASURES = {
    "peak": ("peak memory above that before, MiB", 2**20),
    "gradients": ("of it gradients, MiB", 2**20),
    "seconds": ("seconds", 1),
    "processor": ("processor seconds", 1),
}
"""Name -> in words, and the unit."""
SIZES = ("vocabulary", "hidden", "tokens", "timed tokens")
Terms = Callable[[Tensor, Tensor, Tensor, str], tuple[Tensor, Tensor]]


def plain(hidden: Tensor, weight: Tensor, ids: Tensor, entropy: str) -> tuple[Tensor, Tensor]:
    """With full logits in float32."""
    logits = (hidden @ weight.t()).float()
    normalizer = logits.logsumexp(-1)
    logp = logits.gather(-1, ids[:, None]).squeeze(-1) - normalizer
    if entropy == "none":
        return logp, torch.zeros_like(logp)
    with torch.set_grad_enabled(entropy == "gradient"):
        spread = normalizer - ((logits - normalizer[:, None]).exp() * logits).sum(-1)
    return logp, spread


def rlkit(hidden: Tensor, weight: Tensor, ids: Tensor, entropy: Any) -> tuple[Tensor, Tensor]:
    """In blocks of tokens and vocabulary."""
    return chunked_terms(hidden, ids, Projection(weight=weight), 1.0, entropy)


def trl(hidden: Tensor, weight: Tensor, ids: Tensor, entropy: str) -> tuple[Tensor, Tensor]:
    """TRL's function, in blocks of the vocabulary."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    outputs = () if entropy == "none" else ("entropy",)
    apply: Any = ChunkedLogProbFunction.apply
    inputs = hidden, weight, None, ids, 1.0, TRL_CHUNK, None, 1.0, outputs
    logp, spread, *_ = apply(*inputs)
    return logp, torch.zeros_like(logp) if spread is None else spread


WAYS: dict[str, Terms] = {"plain": plain, "rlkit": rlkit, "trl": trl}


class Case:
    """Random inputs of one size."""

    def __init__(self, options: argparse.Namespace, tokens: int) -> None:
        self.options = options
        draw = torch.Generator().manual_seed(0)
        place = {"device": options.device, "dtype": getattr(torch, options.dtype)}
        sizes = options.vocabularies[0], options.hidden[0]
        self.hidden = torch.randn(tokens, sizes[1], generator=draw).to(**place).requires_grad_()
        weight = torch.randn(*sizes, generator=draw).mul_(sizes[1] ** -0.5)
        self.weight = weight.to(**place).requires_grad_(not options.frozen)
        self.ids = torch.randint(sizes[0], (tokens,), generator=draw).to(options.device)

    def run(self, way: str) -> tuple[Tensor | None, ...]:
        """Forward and backward; the gradients."""
        logp, spread = WAYS[way](self.hidden, self.weight, self.ids, self.options.entropy)
        loss = logp.sum()
        if self.options.entropy == "gradient":
            loss = loss + 0.01 * spread.sum()
        torch.autograd.backward(loss)
        found = self.hidden.grad, self.weight.grad
        self.hidden.grad = self.weight.grad = None
        if self.options.device != "cpu":
            torch.cuda.synchronize()
        return found


def status(field: str) -> int:
    """Bytes of a field of this process's status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


def memory(case: Case, way: str) -> dict[str, int]:
    """Bytes at the peak over those before, and of the gradients."""
    Case(argparse.Namespace(**vars(case.options) | SMALL), SMALL["tokens"]).run(way)  # imports
    gc.collect()
    on_device = case.options.device != "cpu"
    if on_device:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = status("VmRSS")
    found = case.run(way)
    peak = torch.cuda.max_memory_allocated() if on_device else status("VmHWM")
    gradients = sum(x.numel() * x.element_size() for x in found if x is not None)
    return {"peak": peak - before, "gradients": gradients}


def times(case: Case) -> dict[str, dict[str, float]]:
    """Median seconds of each way, by the clock and of the processor."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for repeat in range(case.options.repeats + 1):
        for way, rows in found.items():
            clock, busy = time.perf_counter(), time.process_time()
            case.run(way)
            row = time.perf_counter() - clock, time.process_time() - busy
            rows += [row] if repeat else []
    columns = {way: list(zip(*rows, strict=True)) for way, rows in found.items()}
    return {
        way: {"seconds": statistics.median(clock), "processor": statistics.median(busy)}
        for way, (clock, busy) in columns.items()
    }


def in_process(options: argparse.Namespace, measure: str, vocabulary: int, hidden: int) -> Any:
    """What a process of its own measures."""
    words = ["--measure", measure, "--vocabularies", vocabulary, "--hidden", hidden]
    for name in ("tokens", "timed_tokens", "repeats", "threads", "device", "dtype", "entropy"):
        words += [f"--{name.replace('_', '-')}", getattr(options, name)]
    words += ["--frozen"] if options.frozen else []
    line = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}: {done.stderr}")
    return json.loads(done.stdout)


def goal(measure: str, full: float, trl: float) -> list[str]:
    """The cells of a measure's targets, given the ratios to full logits and to TRL."""
    if measure == "peak":
        return judged(full, TARGETS["memory"], at_most=True)
    if measure != "seconds":
        return ["", ""]
    both = (
        judged(full, TARGETS["time"], at_most=True),
        judged(trl, TARGETS["time of TRL"], at_most=True),
    )
    return ["; ".join(cells) for cells in zip(*both, strict=True)]


def rows_of(case: Measured) -> list[list[str]]:
    """The rows of a size, one for each measure."""
    size = ", ".join(str(case["settings"][name]) for name in SIZES)
    rows = []
    for measure, (words, unit) in MEASURES.items():
        full, ours, theirs = (case["runs"][way][0][measure] / unit for way in WAYS)
        ratios = ours / max(full, 1e-9), ours / max(theirs, 1e-9)
        cells = map(significant, (full, ours, theirs, *ratios))
        rows.append([size, words, *cells, *goal(measure, *ratios)])
    return rows


def tables(records: Records) -> list[Table]:
    """One for the sizes that were measured alike."""
    out = []
    for cases in alike(records.cases, *SIZES):
        first = next(iter(cases.values()))
        about = [*measured_on(first), listed(constant(first, *SIZES))]
        head = [", ".join(SIZES), "measure", "full logits", "rlkit", "TRL"]
        head += ["rlkit / full", "rlkit / TRL", "target", ""]
        rows = [row for case in cases.values() for row in rows_of(case)]
        out.append(Table(title="Log-probs and entropies", about=about, head=head, rows=rows))
    return out


def compare(options: argparse.Namespace) -> None:
    """Measure every size, write the results, and print the table."""
    records, on = Records(options.out), machine(options.threads, options.device)
    for vocabulary, hidden in itertools.product(options.vocabularies, options.hidden):
        found = in_process(options, "time", vocabulary, hidden)
        for way in WAYS:
            found[way] |= in_process(options, way, vocabulary, hidden)
        sizes = vocabulary, hidden, options.tokens, options.timed_tokens
        settings = dict(zip(SIZES, sizes, strict=True)) | {
            name: getattr(options, name) for name in ("dtype", "entropy", "frozen")
        }
        name = f"{options.device}: {listed(settings)}"
        settings |= {"repeats": options.repeats}
        records.put(name, on, settings, {way: [found[way]] for way in WAYS})
        records.save(tables(records))
        print(name, flush=True)
    records.finish(tables(records))


def main() -> None:
    """Compare the ways; or, in a process of its own, measure one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--vocabularies", type=int, nargs="+", default=VOCABULARIES)
    parser.add_argument("--hidden", type=int, nargs="+", default=HIDDEN)
    parser.add_argument("--tokens", type=int, default=4096, help="whose memory is measured")
    parser.add_argument("--timed-tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--entropy", choices=("none", "value", "gradient"), default="value")
    parser.add_argument("--frozen", action="store_true", help="no gradient of the weights")
    parser.add_argument("--quick", action="store_true", help="one small size")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        vars(options).update(QUICK)
    if options.measure is None:
        compare(options)
    elif options.measure == "time":
        print(json.dumps(times(Case(options, options.timed_tokens))))
    else:
        print(json.dumps(memory(Case(options, options.tokens), options.measure)))


if __name__ == "__main__":
    main()
