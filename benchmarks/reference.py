"""Does a change of the code change any number? Short runs of fixed seeds, before and after.

    python benchmarks/reference.py before.json          # at the commit before
    python benchmarks/reference.py after.json --compare before.json

Every composition of configs/algorithm/ and the settings of OTHERS run for a few steps; their
metrics (times and memory left out) and the hash of their last weights are recorded. A comparison is
exact, so both files must come from one machine. Exit status 1 if any number differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.cli import ROOT, SMALL, metrics, run, without_times

COMPOSITIONS = sorted(path.stem for path in (ROOT / "configs" / "algorithm").glob("*.yaml"))
OTHERS: dict[str, tuple[str, ...]] = {
    "micro_batches": ("train.micro_batch_tokens=64",),
    "two_passes": ("algorithm=ppo", "train.updates_per_batch=2", "train.micro_batch_tokens=96"),
    "rebirth": ("schedule.at=2", "train.steps=4"),
    "anchor_periodic": ("anchor=periodic", "algorithm=grpo"),
    "convex": ("anchor=convex", "algorithm=grpo"),
    "periodic": ("schedule=periodic", "schedule.every=2", "train.steps=4"),
    "lag": ("algorithm=grpo", "loss=grpo_behavior", "rollout.sync_every=2", "train.steps=4"),
    "ahead": ("algorithm=grpo", "loss=grpo_behavior", "rollout.mode=ahead"),
    "partial": ("algorithm=grpo", "rollout.oversample=0.5", "rollout.round_tokens=4"),
    "layer_skip": ("algorithm=grpo", "rollout=layer_skip", "rollout.skip=0.5"),
    "top_p": ("algorithm=grpo", "rollout.top_p=0.9"),
    "kl_in_reward": ("algorithm=grpo", "anchor=kl_in_reward"),
    "ema": ("algorithm=grpo", "anchor=ema"),
    "lagged": ("algorithm=grpo", "anchor=lagged"),
    "previous": ("algorithm=grpo", "anchor=previous"),
    "bias_correction": (
        *("anchor=base", "algorithm=grpo"),
        *("anchor.bias_correction=true", "anchor.gradient_estimator=k3"),
    ),
    "corrections": ("algorithm=bapo", "correction=[tis,icepop,overlong_filter,entropy_bonus]"),
    "correction_masks": ("algorithm=topr", "correction=[opsm,geo_mask,dppo_mask]"),
    "scalar": ("anchor.beta={kind: cosine, start: 0.1, end: 0, steps: 3}",),
    "learning_rate": ("train.learning_rate={kind: linear, start: 1e-4, end: 1e-5, steps: 2}",),
    "lora": ("algorithm=remix", "model.lora.r=2"),
    "autocast": ("algorithm=grpo", "model.autocast=bfloat16"),
    "bfloat16": ("algorithm=remix", "model.dtype=bfloat16"),
    "checkpointing": ("algorithm=grpo", "model.gradient_checkpointing=true"),
    "disk": ("algorithm=remix", "buffer.storage=disk", "train.steps=4"),
    "mix": ("algorithm=luffy", "buffer=mix"),
    "value_decay": ("buffer=value_decay", "train.steps=4"),
    "prioritized": ("buffer=prioritized", "train.steps=4"),
    "adaptive": ("buffer=adaptive", "train.steps=4"),
    "stages": ("stages=[{steps: 2, overrides: ['algorithm=sft']}, {steps: 2}]",),
    "pass_at_k": ("algorithm=grpo", "eval.samples=4", "eval.k=2", "eval.every=1"),
    "token_rewards": ("algorithm=reinforce_pp", "reward=[exact,overlong]"),
}


def record(name: str, arguments: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """The metrics and the weights of one run, or what it said instead."""
    short = SMALL if "rollout.mode=ahead" not in arguments else (*SMALL, "train.steps=3")
    result = run(*short, *arguments, f"output_dir={name}", cwd=folder)
    if result.status:
        return {"error": result.err.strip()}
    newest = max((folder / name).glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    weights = next(p for p in newest.glob("*.safetensors"))
    return {
        "metrics": without_times(metrics(folder / name)),
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs of one run, one line each."""
    if set(before) != set(after) or "error" in before:
        return [] if before == after else [f"{before.get('error')} -> {after.get('error')}"]
    out = [] if before["weights"] == after["weights"] else ["weights"]
    for old, new in zip(before["metrics"], after["metrics"], strict=True):
        changed = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
        out += [f"step {old['step']} {k}: {old.get(k)} -> {new.get(k)}" for k in changed]
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--compare", type=Path, help="an earlier recording")
    parser.add_argument("--only", default="", help="names, separated by commas")
    a = parser.parse_args()
    runs = {name: (f"algorithm={name}",) for name in COMPOSITIONS} | OTHERS
    chosen = {name: runs[name] for name in a.only.split(",") if name} or runs
    with tempfile.TemporaryDirectory() as folder:
        found = {name: record(name, given, Path(folder)) for name, given in chosen.items()}
    a.out.write_text(json.dumps(found))
    failed = [f"{name}: {row['error']}" for name, row in found.items() if "error" in row]
    print(f"{len(found)} runs recorded, {len(failed)} failed", *failed, sep="\n")
    if a.compare is None:
        return 0
    before = json.loads(a.compare.read_text())
    lines = [
        f"{name}: {line}"
        for name in found
        if name in before
        for line in differences(before[name], found[name])
    ]
    print(f"{len(lines)} differences", *lines[:60], sep="\n")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
