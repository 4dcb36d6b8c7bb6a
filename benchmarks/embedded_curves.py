"""The picture of the README: held-out pass@1 of the embedded default over generated responses.

    python benchmarks/embedded_curves.py            # runs what is missing, then draws
    python benchmarks/embedded_curves.py --draw     # draws from benchmarks/results alone

ReMix, GRPO, and the control that generates as many responses as ReMix and takes as many passes over
them without replay; five seeds of the base and the run each.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor

from bench import RESULTS, ROOT, run

OUT = RESULTS / "embedded_curves.json"
PICTURE = ROOT / "docs" / "embedded.png"
RUNS = {
    "ReMix": ["algorithm=remix", "buffer=fifo", "anchor=kl_convex"],
    "GRPO": ["algorithm=grpo"],
    "control: ReMix's fresh responses and passes, no replay": ["+experiment=grpo_utd_control"],
}
SEEDS = range(5)


def curve(arguments: list[str], seed: int) -> list[list[float]]:
    """[responses, pass@1] at every evaluation of a run."""
    done = run(*arguments, "eval.every=5", "eval.problems=500", seed=seed)
    return done.values("eval/pass@1", over="rollouts/total")


def measure(processes: int) -> dict[str, list[list[list[float]]]]:
    """Every curve, `processes` at a time."""
    jobs = [(name, seed) for name in RUNS for seed in SEEDS]
    with ThreadPoolExecutor(processes) as pool:
        found = list(pool.map(lambda job: curve(RUNS[job[0]], job[1]), jobs))
    return {name: [c for (n, _), c in zip(jobs, found, strict=True) if n == name] for name in RUNS}


def draw(curves: dict[str, list[list[list[float]]]]) -> None:
    """Medians as lines, ranges as bands."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 3.6))
    colors = ("#c2410c", "#1d4ed8", "#6b7280")
    for (name, runs), color in zip(curves.items(), colors, strict=True):
        x = [point[0] for point in runs[0]]
        columns = [[point[1] for point in points] for points in zip(*runs, strict=True)]
        style = "--" if name.startswith("control") else "-"
        axes.plot(x, [statistics.median(c) for c in columns], style, color=color, label=name)
        axes.fill_between(
            x, [min(c) for c in columns], [max(c) for c in columns], color=color, alpha=0.12, lw=0
        )
    axes.set(xlabel="generated responses", ylabel="held-out pass@1 (sampled)", ylim=(0, 1))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=130)


def main() -> None:
    """Measure unless told not to, then draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    if not options.draw:
        RESULTS.mkdir(exist_ok=True)
        OUT.write_text(json.dumps(measure(options.processes)))
    draw(json.loads(OUT.read_text()))


if __name__ == "__main__":
    main()
