"""Every composition of configs/algorithm/, 20 steps on the embedded default: docs/compositions.md.

    python benchmarks/embedded_compositions.py --seeds 3 --workers 2

It shows that each composition trains and stays finite, with held-out pass@1 (sampled, 512 problems)
before and after. It is no ranking: 20 steps, one learning rate for all. What learns from a teacher
gets the last checkpoint of another composition's run of the same seed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import ROOT, Run, run

PAGE = ROOT / "docs" / "compositions.md"
STEPS = 20
SETTINGS = (
    f"train.steps={STEPS}",
    "train.warmup_steps=2",
    "train.lr_scheduler_type=constant",
    "eval.problems=512",
    "eval.every=null",
    "checkpoint.every=null",
)
TEACHERS = {"mopd": "grpo"}
"""Compositions that need a teacher, and whose run gives it."""
FEW = (
    *("plugins=[./benchmarks/studies/few_sums.py]", "task=few_sums", "task.problems=32"),
    *("train.learning_rate=1e-4", "train.prompts_per_step=16", "train.minibatches=4"),
)
"""Prompts that come again within so few steps, with the settings that task=arithmetic has."""
EARLIER = {
    "exgrpo": FEW,
    "remix": ("schedule.at=10", "anchor.start=5", "anchor.interval=2"),
    "remix_ppo": ("schedule.at=10", "anchor.start=5", "anchor.interval=2"),
    "repo": FEW,
    "rlep": (*FEW, "buffer.collect_steps=5"),
    "spear": ("buffer.size=32", "loss=spear"),
    "tba": ("schedule.every=5",),
    "tr_dpo": ("anchor.every=5",),
}
"""What lets a composition come to what it is there for within so few steps."""
KINDS = ("loss", "advantage", "buffer", "anchor", "schedule")


def run_taught(algorithm: str, seed: int) -> Run:
    """A run, after that of its teacher if it needs one."""
    if algorithm not in TEACHERS:
        return run(f"algorithm={algorithm}", *SETTINGS, *EARLIER.get(algorithm, ()), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "teacher"
        run(f"algorithm={TEACHERS[algorithm]}", *SETTINGS, seed=seed, out=out)
        teacher = f"anchor.path={out}/checkpoint-{STEPS}"
        return run(f"algorithm={algorithm}", teacher, *SETTINGS, seed=seed)


def figures(algorithm: str, seed: int) -> dict[str, Any]:
    """The measurements of one run."""
    done = run_taught(algorithm, seed)
    rows, config, steps = done.metrics, done.config, done.steps
    before, after = (row["eval/pass@1"] for row in rows if "eval/pass@1" in row)
    numbers = [v for row in steps for v in row.values() if isinstance(v, int | float)]
    return {
        "parts": {kind: config[kind]["name"] for kind in KINDS}
        | {"correction": "+".join(config.get("correction") or {})},
        "before": before,
        "after": after,
        "first": steps[0].get("reward/mean", math.nan),
        "last": steps[-1].get("reward/mean", math.nan),
        "responses": steps[-1]["rollouts/total"],
        "finite": len(steps) == STEPS and all(math.isfinite(v) for v in numbers),
    }


def row_of(name: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    """A composition's row: medians over the seeds."""
    parts = runs[0]["parts"]
    loss = parts["loss"] + (f" + {parts['correction']}" if parts["correction"] else "")

    def median(key: str) -> str:
        return f"{statistics.median(r[key] for r in runs):.3f}"

    return [
        f"`{name}`",
        loss,
        *(parts[kind] for kind in KINDS[1:]),
        f"{runs[0]['responses']:.0f}",
        median("before"),
        median("after"),
        f"{median('first')} to {median('last')}" if runs[0]["responses"] else "none generated",
        "yes" if all(r["finite"] for r in runs) else "NO",
    ]


def merged(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The new rows, with the page's own for the compositions that were not run."""
    lines = PAGE.read_text().splitlines() if PAGE.exists() else []
    earlier = {
        cells[0]: cells for line in lines if (cells := line[2:-2].split(" | "))[0][:1] == "`"
    }
    known = {f"`{p.stem}`" for p in (ROOT / "configs" / "algorithm").glob("*.yaml")}
    every = earlier | {row[0]: list(row) for row in rows}
    return [every[name] for name in sorted(every, key=lambda n: n.strip("`")) if name in known]


def page(rows: Sequence[Sequence[str]], seeds: int) -> str:
    """docs/compositions.md."""
    head = [
        *("algorithm", "loss", "advantage", "buffer", "anchor", "schedule", "responses"),
        *("pass@1 before", "pass@1 after", "training reward", "finite"),
    ]
    lines = ["| " + " | ".join(row) + " |" for row in [head, *rows]]
    return "\n".join(
        [
            "# Compositions\n",
            "Written by `python benchmarks/embedded_compositions.py`: every composition of "
            f"`configs/algorithm/`, {STEPS} steps on the embedded default, medians of {seeds} "
            "seeds. It shows that each trains and stays finite. It is no ranking: the runs are "
            "short and share one learning rate. "
            + " ".join(
                f"The teacher of `{name}` is the `{teacher}` run of the same seed."
                for name, teacher in TEACHERS.items()
            )
            + " So that they come to what they are there for within so few steps, some have other "
            "settings: "
            + "; ".join(f"`{name}` has `{' '.join(own)}`" for name, own in EARLIER.items())
            + ".\n",
            lines[0],
            "|" + "---|" * len(head),
            *lines[1:],
            "",
        ]
    )


def main() -> None:
    """Run every composition with every seed and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--algorithms", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    files = (ROOT / "configs" / "algorithm").glob("*.yaml")
    every = sorted(p.stem for p in files if "override" in p.read_text())  # others are old names
    chosen = options.algorithms or every
    with ThreadPoolExecutor(options.workers) as pool:
        runs = {
            name: [pool.submit(figures, name, seed) for seed in range(options.seeds)]
            for name in chosen
        }
        rows = []
        for name in chosen:
            rows.append(row_of(name, [each.result() for each in runs[name]]))
            print("  ".join(rows[-1]), flush=True)
    PAGE.write_text(page(merged(rows), options.seeds))


if __name__ == "__main__":
    main()
