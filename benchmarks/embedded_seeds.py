"""Held-out sampled pass@1 of compositions on the embedded default, over seeds of base and run.

    python benchmarks/embedded_seeds.py --algorithms remix grpo --seeds 10 --out seeds.json

Seed i warms up base i and runs with seed i. Each run evaluates 1,000 held-out problems before and
after training. The table gives every seed, the median, how many seeds reach 0.85, and the seconds
of training (evaluation not counted).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from bench import run


def figures(arguments: Sequence[str], seed: int) -> dict[str, float]:
    """The measurements of one run."""
    done = run(*arguments, "eval.problems=1000", "eval.every=null", seed=seed)
    steps = done.steps
    before, after = (row for row in done.metrics if "eval/pass@1" in row)
    return {
        "seed": seed,
        "before": before["eval/pass@1"],
        "after": after["eval/pass@1"],
        "greedy": after["eval/greedy"],
        "rollouts": steps[-1]["rollouts/total"],
        "seconds": sum(row["time/step"] for row in steps),
    }


def main() -> None:
    """Run every algorithm with every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--algorithms", nargs="+", default=["remix", "grpo"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--overrides", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = {}
    for name in options.algorithms:
        choice = [f"+experiment={name[1:]}"] if name.startswith("+") else [f"algorithm={name}"]
        rows = []
        for seed in range(options.seeds):
            rows.append(figures([*choice, *options.overrides], seed))
        table[name] = rows
        after = [row["after"] for row in rows]
        print(
            f"{name:20} before {statistics.median(r['before'] for r in rows):.3f}  "
            f"after {' '.join(f'{x:.3f}' for x in after)}  median {statistics.median(after):.3f}  "
            f">=0.85: {sum(x >= 0.85 for x in after)}/{len(after)}  "
            f"greedy {statistics.median(r['greedy'] for r in rows):.3f}  "
            f"rollouts {rows[0]['rollouts']:.0f}  "
            f"seconds {statistics.median(r['seconds'] for r in rows):.0f}",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
