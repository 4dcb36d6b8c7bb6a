"""What earlier responses give to new rollouts: tokens kept as drafts, data nearer to the policy.

    python benchmarks/drafts.py kept
    python benchmarks/drafts.py sampling

`kept` samples responses with the embedded policy and asks the same prompts again with the policy
after some steps of GRPO, by each rule: the share of tokens taken from drafts, the decoding steps
left of those of the longest response, and for the lenient rule the total variation of a token from
the policy at the drafts' places. `sampling` is KL(data || policy) of the next token where the
embedded policy is least certain, for PROPS and for plain sampling. Both write
benchmarks/results/drafts.json and print the tables of docs/drafts.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from bench import RESULTS, run
from torch import Tensor

import rlkit
from rlkit.batch import Prompt, Request
from rlkit.config.run import ModelConfig
from rlkit.interfaces import Tokens
from rlkit.models.embedded import embedded_model_dir
from rlkit.models.load import load_policy
from rlkit.models.policy import Policy
from rlkit.rollout.base import Generation, GenerationCall
from rlkit.rollout.draft_rules import lenient_distribution, total_variation
from rlkit.rollout.head_probe import find_head
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.props import Props, sampling_error
from rlkit.rollout.spec_rl import SpecRL

OUT = RESULTS / "drafts.json"
LENGTH = 14
RULES: dict[str, dict[str, Any]] = {
    "exact, new": {},
    "exact, stored": {"draft_uniforms": "stored"},
    "lenient, b = 0": {"draft_rule": "lenient"},
    "lenient, b = -0.5": {"draft_rule": "lenient", "draft_bias": -0.5},
}
LIMITS = {"behavior_kl_limit": None}


def keep(name: str, found: object) -> None:
    """Store measurements under a name in the file of results."""
    OUT.parent.mkdir(exist_ok=True)
    kept = json.loads(OUT.read_text()) if OUT.exists() else {}
    OUT.write_text(json.dumps(kept | {name: found}))


def policy_of(folder: str | Path) -> Policy:
    """A policy with what log-probs need."""
    policy = load_policy(ModelConfig(device="cpu"), folder, 1.0)
    policy.head = find_head(policy, 0)
    return policy


def prompts_of(policy: Policy, count: int) -> list[Prompt]:
    """Problems of the embedded task."""
    rows = rlkit.build("task", "arithmetic").load(0).train
    step = len(rows) // count
    return [
        Prompt(
            prompt_id=str(i),
            text_or_messages=rows[i * step]["prompt"],
            ids=torch.tensor(policy.tokenizer(rows[i * step]["prompt"])["input_ids"]),
            columns={},
        )
        for i in range(count)
    ]


@torch.no_grad()
def shares(policy: Policy, prompts: Sequence[Tensor], responses: Sequence[Tensor]) -> Tensor:
    """The policy's probabilities at every place of the responses, [N, V] float64."""
    tokens = Tokens.of(list(prompts), list(responses))
    width = tokens.response_ids.shape[1]
    logits = policy.model(**tokens.model_inputs(policy.device)).logits[:, -width - 1 : -1]
    mask = torch.arange(width) < tokens.response_lengths[:, None]
    found: Tensor = logits[mask].double().softmax(-1)
    return found


def figures(
    base: Policy, other: Policy, requests: Sequence[Request], fields: dict[str, Any]
) -> dict[str, float]:
    """What a second visit with other weights keeps of the first."""
    config = HFConfig(draft="spec_rl", max_completion_length=LENGTH, **fields)
    policy = policy_of(embedded_model_dir(0))
    engine = SpecRL(HFRollout(config))
    engine.start(policy, 0)
    first = engine.generate(GenerationCall(requests, ("rollout", 1, 0)))
    engine.metrics()
    policy.model.load_state_dict(other.model.state_dict())
    engine.sync(2)
    second = engine.generate(GenerationCall(requests, ("rollout", 2, 0)))
    found = engine.metrics()
    out = {
        "kept": found["rollouts/draft_kept_fraction"],
        "steps": max(len(g.response_ids) for group in second for g in group),
        "saved": found["rollouts/draft_steps_saved"],
        "seconds": found["time/draft"],
    }
    flat: list[Generation] = [one for group in first for one in group]
    prompts = [r.prompt.ids for r in requests for _ in range(r.n)]
    drafts = [one.response_ids for one in flat]
    q, p = (shares(each, prompts, drafts) for each in (base, other))
    out["distance"] = float((q * (q.log() - p.log())).sum(-1).mean())
    if config.draft_rule == "lenient":
        lenient = lenient_distribution(p, q, bias=config.draft_bias)
        out["error"] = float(total_variation(lenient, p).mean())
    return out


def kept(options: argparse.Namespace) -> Iterator[list[str]]:
    """The rows of the table: policies by rules."""
    yield ["GRPO steps between", "KL, nats per token", *RULES, "TV, b = 0", "TV, b = -0.5"]
    base = policy_of(embedded_model_dir(0))
    requests = [Request(prompt=p, n=8) for p in prompts_of(base, options.prompts)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        settings = (f"train.steps={max(options.steps)}", "checkpoint.keep=100")
        often = (f"checkpoint.every={min(options.steps)}", "eval.every=null", "eval.problems=64")
        run("algorithm=grpo", *settings, *often, seed=0, out=place)
        measured = {}
        for step in (0, *options.steps):
            other = policy_of(place / f"checkpoint-{step}") if step else base
            row = {name: figures(base, other, requests, each) for name, each in RULES.items()}
            measured[str(step)] = row
            yield [
                str(step),
                f"{row['exact, new']['distance']:.4f}",
                *(f"{one['kept']:.3f}" for one in row.values()),
                *(f"{one['error']:.4f}" for one in row.values() if "error" in one),
            ]
    keep("kept", measured)


@torch.no_grad()
def uncertain(policy: Policy, count: int) -> list[Prompt]:
    """Problems with as much of their greedy answer as leads to the least certain next token."""
    prompts = prompts_of(policy, count)
    engine = HFRollout(HFConfig(max_completion_length=LENGTH))
    engine.start(policy, 0)
    call = GenerationCall([Request(prompt=p, n=1) for p in prompts], ("g", 0, 0), greedy=True)
    out = []
    for prompt, (answer,) in zip(prompts, engine.generate(call), strict=True):
        p = shares(policy, [prompt.ids], [answer.response_ids])
        place = int((-(p * p.log()).sum(-1)).argmax())
        ids = torch.cat([prompt.ids, answer.response_ids[:place]])
        out.append(Prompt(prompt_id=prompt.prompt_id, text_or_messages="", ids=ids, columns={}))
    return out


def sampling(options: argparse.Namespace) -> Iterator[list[str]]:
    """The rows of the table: ways to sample."""
    head = ("sampled by", "rounds", "learning rate", "KL(data || policy)")
    yield [*head, "KL(policy || phi)", "seconds"]
    policy = policy_of(embedded_model_dir(0))
    prompts = uncertain(policy, options.prompts)
    one = torch.zeros(1, dtype=torch.int64)
    truth = [shares(policy, [p.ids], [one])[0] for p in prompts]
    ways: list[dict[str, Any]] = [{}]
    for rate in (1e-3, 1e-2):
        for rounds in (2, 4, 8):
            ways.append(
                {"behavior": "props", "behavior_rounds": rounds, "behavior_learning_rate": rate}
                | LIMITS
            )
    measured = []
    for way in ways:
        errors, distances, seconds = [], [], []
        for seed in range(options.seeds):
            engine: Any = HFRollout(HFConfig(max_completion_length=1, **way))
            engine = Props(engine) if way else engine
            engine.start(policy, seed)
            call = GenerationCall([Request(prompt=p, n=64) for p in prompts], ("rollout", 1, 0))
            started = time.perf_counter()
            found = engine.generate(call)
            seconds.append(time.perf_counter() - started)
            distances.append(engine.metrics().get("rollouts/behavior_kl", 0.0))
            for group, p in zip(found, truth, strict=True):
                ids = torch.cat([one.response_ids for one in group])
                errors.append(float(sampling_error(torch.bincount(ids, minlength=len(p)), p)))
        figure = {
            "way": way,
            "error": statistics.mean(errors),
            "distance": statistics.mean(distances),
            "seconds": statistics.median(seconds),
        }
        measured.append(figure)
        yield [
            "PROPS" if way else "the policy",
            str(way.get("behavior_rounds", "")),
            str(way.get("behavior_learning_rate", "")),
            f"{figure['error']:.4f}",
            f"{figure['distance']:.4f}",
            f"{figure['seconds']:.2f}",
        ]
    keep("sampling", measured)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="drafts.py", description=__doc__)
    parser.add_argument("what", choices=("kept", "sampling"))
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = kept(options) if options.what == "kept" else sampling(options)
    for number, row in enumerate(rows):
        print("| " + " | ".join(row) + " |", flush=True)
        if number == 0:
            print("|" + "---|" * len(row))


if __name__ == "__main__":
    main()
