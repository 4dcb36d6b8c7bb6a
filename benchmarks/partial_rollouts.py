"""Responses per second when a step does not wait for its longest response, against one that does.

    python benchmarks/partial_rollouts.py --repeats 3

Generation alone, with rollout=hf in one thread on a random model whose every token ends the
response with the same probability: lengths are skewed, and unlike those of a real model they do not
depend on the prompt. The ways are measured in turn, each from an empty pool, whose first steps are
not counted; the table gives medians. Seconds are the process's CPU time, so that other work on the
machine counts little. A continued response costs a forward over its tokens each round, since the
engine keeps no cache between rounds. If a device runs a batch as fast as a single response, a step
lasts as long as its sequential forwards; here a forward costs in proportion to its tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlkit.models.embedded import make_tokenizer
from rlkit.models.policy import Policy
from rlkit.rollout.hf import HFConfig, HFRollout
from rlkit.rollout.partial import Partial
from rlkit.rollout.source import OnDemand, Source, StepPlan
from rlkit.tasks.prompts import Prompts
from rlkit.tasks.stream import PromptStream

WAYS: dict[str, tuple[float, int]] = {
    "sync": (0.0, 1),
    "oversample 0.5, rounds of 32": (0.5, 32),
    "oversample 1, rounds of 32": (1.0, 32),
    "oversample 1, rounds of 128": (1.0, 128),
}
"""Name -> (oversample, round_tokens)."""
VOCABULARY = 256


def make_policy(options: argparse.Namespace) -> Policy:
    """A model whose every token ends the response with probability 1 / mean, about."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=options.width,
        intermediate_size=2 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.02,
        bos_token_id=None,
        eos_token_id=1,
    )
    model: Any = LlamaForCausalLM
    policy = Policy(model(shape), make_tokenizer(), 1.0)
    ends = list(range(1, 1 + max(1, round(VOCABULARY / options.mean))))
    policy.model.generation_config.eos_token_id = ends
    return policy


def source_of(
    policy: Policy, way: tuple[float, int], options: argparse.Namespace, seed: int
) -> Source:
    """Where a step's responses come from."""
    oversample, tokens = way
    config = HFConfig(
        max_completion_length=options.length,
        num_generations=options.n,
        oversample=oversample,
        round_tokens=tokens,
    )
    engine = HFRollout(config)
    engine.start(policy, seed=seed)
    return Partial(engine, greedy=False) if oversample else OnDemand(engine, greedy=False)


def measure(
    policy: Policy, way: tuple[float, int], options: argparse.Namespace, seed: int
) -> list[float]:
    """[responses and tokens per second, forwards and continued share per step] of some steps."""
    rows = [{"prompt": f"{i % 9}+{i % 7}="} for i in range(1000)]
    prompts = PromptStream(
        Prompts("train", rows, policy.tokenizer), seed, options.n, options.length
    )
    source = source_of(policy, way, options, seed)
    responses, tokens, seconds, continued = 0, 0, 0.0, []
    forwards: list[int] = []
    step = 0
    hook = policy.model.register_forward_pre_hook(lambda model, inputs: forwards.append(step))
    for step in range(1, options.warm_up + options.steps + 1):
        started = time.process_time()
        plan = StepPlan(buffer=None, prompts=prompts, groups=options.prompts, step=step)
        source.begin(plan)
        groups = source.completed(plan, None, 0)
        if step > options.warm_up:
            seconds += time.process_time() - started
            responses += sum(len(group.own) for group in groups)
            tokens += sum(len(g.response_ids) for group in groups for g in group.own)
            continued.append(source.metrics().get("off_policy/continued_fraction", 0.0))
    hook.remove()
    counted = sum(step > options.warm_up for step in forwards)
    share = statistics.mean(continued)
    return [responses / seconds, tokens / seconds, counted / options.steps, share]


def main() -> None:
    """Measure in turn, so that a drift of the machine meets all alike, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, value in {
        **{"steps": 16, "warm-up": 8, "repeats": 3, "prompts": 8, "n": 4, "length": 512},
        **{"mean": 64, "width": 64, "layers": 4},
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy = make_policy(options)
    found: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    for seed in range(options.repeats):
        for name, way in WAYS.items():
            found[name].append(measure(policy, way, options, seed))
    print(f"{'':30} responses/s  to sync (worst, best)  tokens/s  forwards  continued")
    for name, rows in found.items():
        middle = [statistics.median(column) for column in zip(*rows, strict=True)]
        ratios = [row[0] / plain[0] for row, plain in zip(rows, found["sync"], strict=True)]
        print(
            f"{name:30} {middle[0]:11.1f}  {statistics.median(ratios):5.2f} "
            f"({min(ratios):.2f}, {max(ratios):.2f})     {middle[1]:9.0f}  {middle[2]:8.0f}  "
            f"{middle[3]:9.2f}"
        )


if __name__ == "__main__":
    main()
