"""One run of either side, as a fresh process, and what is compared of it."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import read
from records import ROOT
from watch import Watched, watched

from peers.cases import Case
from peers.models import prepared

HERE = ROOT / "benchmarks" / "peers"
RUN_FOLDER = "Run folder:"
"""What rlkit says once its model is loaded."""
LOADED = "The model is loaded"
"""What TRL's side says then."""

KL = (
    *("anchor.value_estimator=k3", "anchor.gradient_estimator=k3"),
    *("anchor.bias_correction=true", "anchor.skip_zero_advantage=false"),
)
"""TRL's penalty."""


@dataclass(frozen=True)
class Ran:
    """A run: per step of the training, the first included."""

    seconds: list[float]
    generation: list[float]
    calls: list[dict[str, Any]]
    """What the reward was called with."""
    memory: Watched
    cuda_mb: float | None
    gradients: list[float] = field(default_factory=list)
    """Norms before clipping."""

    def summary(self) -> dict[str, Any]:
        """Means over the steps but the first, and the memory.

        Without what the first step compiles, allocates and reads; all in seconds, tokens and MiB.
        """
        seconds, generation = self.seconds[1:], self.generation[1:]
        tokens = [call["tokens"] for call in self.calls[1:]]
        step = statistics.mean(seconds)
        out = {
            "step_s": step,
            "generation_s": statistics.mean(generation),
            "update_s": step - statistics.mean(generation),
            "tokens_per_s": sum(tokens) / sum(seconds),
            "tokens": statistics.mean(tokens),
            "peak_mb": self.memory.peak_mb,
            "above_loading_mb": self.memory.peak_mb - self.memory.loaded_mb,
            "rewards": [call["reward"] for call in self.calls],
        }
        return out if self.cuda_mb is None else out | {"cuda_mb": self.cuda_mb}


def recorded(place: Path, case: Case) -> list[dict[str, Any]]:
    """The reward's calls of training steps; an evaluation has fewer responses."""
    calls = json.loads(place.read_text())
    return [call for call in calls if call["responses"] == case.responses]


def rlkit_words(case: Case, model: Path, *, steps: int, seed: int) -> list[str]:
    """The arguments of `python -m rlkit.run`."""
    anchor = ["anchor=base", f"anchor.beta={case.beta}", *KL]
    return [
        *("algorithm=grpo", "advantage=group_norm_trl", *(anchor if case.beta else ())),
        *("task=jsonl", f"task.path={model / case.data}.jsonl"),
        f"task.eval_path={model / case.data}-held-out.jsonl",
        f"reward=[{HERE / 'reward.py'}:{case.reward}]",
        *(f"model.name={model}", f"model.device={case.device}"),
        *(["model.autocast=bfloat16"] if case.dtype == "bfloat16" else ()),
        *(f"seed={seed}", f"train.steps={steps}", f"train.prompts_per_step={case.prompts}"),
        *("train.minibatches=1", f"train.learning_rate={case.learning_rate}"),
        *("train.max_grad_norm=1.0", f"train.micro_batch_tokens={case.micro_batch_tokens}"),
        f"rollout.num_generations={case.n}",
        f"rollout.max_completion_length={case.tokens}",
        *(f"eval.reward={case.reward}", "eval.every=null", "eval.problems=1"),
        *("checkpoint.every=null", "completions.every=null"),
        *case.overrides,
    ]


def record_env(place: Path, *, ids: bool) -> Mapping[str, str]:
    """The variables that make the reward note its calls."""
    env = {"RLKIT_BENCH_RECORD": str(place)}
    return env | {"RLKIT_BENCH_RECORD_IDS": "1"} if ids else env


def run_rlkit(case: Case, folder: Path, *, seed: int, threads: int, ids: bool = False) -> Ran:
    """rlkit's side; its run folder is `folder`/run."""
    model, record = prepared(case.model, equal=case.equal), folder / "rlkit-calls.json"
    words = rlkit_words(case, model, steps=case.steps + 1, seed=seed)
    command = [sys.executable, "-m", "rlkit.run", *words, f"output_dir={folder / 'run'}"]
    env = record_env(record, ids=ids)
    memory = watched(command, threads=threads, loaded=RUN_FOLDER, **env)
    steps = read(folder / "run").steps
    return Ran(
        seconds=[row["time/step"] for row in steps],
        generation=[row["time/rollout"] for row in steps],
        calls=recorded(record, case),
        memory=memory,
        cuda_mb=None if case.device == "cpu" else steps[-1]["memory/peak_mb"],
        gradients=[row["policy/grad_norm"] for row in steps],
    )


def ordered(case: Case, model: Path, calls: Sequence[Mapping[str, Any]], place: Path) -> None:
    """Write the rows of the prompts that rlkit took, in its order."""
    rows = [json.loads(line) for line in (model / f"{case.data}.jsonl").read_text().splitlines()]
    by_prompt = {json.dumps(row["prompt"]): row for row in rows}
    chosen = [by_prompt[json.dumps(prompt)] for call in calls for prompt in call["prompts"]]
    place.write_text("".join(json.dumps(row) + "\n" for row in chosen))


def run_trl(
    case: Case, folder: Path, given: Ran, *, seed: int, threads: int, replay: bool = False
) -> Ran:
    """TRL's side, on the prompts of a run of rlkit; with `replay` on its responses too."""
    model, record = prepared(case.model, equal=case.equal), folder / "trl-calls.json"
    data, out = folder / "ordered.jsonl", folder / "trl.json"
    ordered(case, model, given.calls, data)
    request = {
        **{name: getattr(case, name) for name in ("n", "tokens", "responses", "trl_rows")},
        **{name: getattr(case, name) for name in ("reward", "learning_rate", "beta")},
        **{name: getattr(case, name) for name in ("device", "dtype")},
        "model": str(model),
        "data": str(data),
        "steps": case.steps + 1,
        "seed": seed,
        "check": replay,
        "replay": [call["ids"] for call in given.calls] if replay else None,
        "scratch": str(folder / "trl"),
        "out": str(out),
    }
    (folder / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "peers.trl_worker", str(folder / "request.json")]
    env = record_env(record, ids=False)
    memory = watched(command, threads=threads, loaded=LOADED, **env)
    found = json.loads(out.read_text())
    return Ran(
        seconds=found["seconds"],
        generation=found["generation"],
        calls=recorded(record, case),
        memory=memory,
        cuda_mb=found["cuda_mb"],
        gradients=[log["grad_norm"] for log in found["logs"] if "grad_norm" in log],
    )
