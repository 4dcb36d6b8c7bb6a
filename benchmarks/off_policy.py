"""What reuse saves as generation grows dearer: seconds and generated tokens to a held-out score.

    python benchmarks/off_policy.py --repeats 5
    python benchmarks/off_policy.py --quick --out /tmp/off_policy.json

The embedded arithmetic task, several seeds of base and run. Each way of training runs as it is, and
its clock is then computed: the seconds of everything but generation are those measured in its own
steps, and a generated token costs ratio x (GRPO's measured seconds of everything but generation) /
(GRPO's generated tokens). At ratio 4, generating GRPO's batch takes four times as long as the rest
of its step, on average. In turns the two add up. In mode async they overlap: a step's generation
begins once the weights it uses and the generation before it are there, and its update once it is
generated. Evaluations cost nothing. Every
process has one thread. The machine should be idle, since an update is measured.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import RESULTS, Run, run
from records import Case, Records, Table, machine, measured_on, significant

GRPO, ASYNC = "GRPO", "GRPO, async"
WAYS: dict[str, list[str]] = {
    GRPO: ["algorithm=grpo"],
    "ReMix": ["algorithm=remix", "buffer=fifo", "anchor=kl_convex"],
    "GRPO with ReMix's updates per batch": ["algorithm=grpo", "train.updates_per_batch=2"],
    "ReMix's fresh responses and passes, no replay": ["+experiment=grpo_utd_control"],
    ASYNC: [
        *("algorithm=grpo", "loss=grpo_behavior"),
        *("rollout.mode=async", "rollout.deterministic=true"),
    ],
}


def record(done: Run) -> dict[str, Any]:
    """Per step the generated tokens, the other seconds and the updates; every evaluation."""
    totals = [0, *(row["rollouts/tokens"] for row in done.steps)]
    return {
        "tokens": [after - before for before, after in itertools.pairwise(totals)],
        "seconds": [row["time/step"] - row["time/rollout"] for row in done.steps],
        "generation": [row["time/rollout"] for row in done.steps],
        "scores": done.values("eval/pass@1"),
    }


def to_score(found: dict[str, Any], score: float) -> int | None:
    """The step of the first evaluation at or above the score, not counting that before training."""
    return next((int(step) for step, value in found["scores"] if step and value >= score), None)


def clock(found: dict[str, Any], steps: int, per_token: float, lead: int | None) -> float:
    """Seconds until step `steps` is done, if a generated token costs `per_token` seconds.

    With a `lead` of k steps in parallel, G and U being when a step's generation and update end:

        G_s = max(G_{s-1}, U_{s-1-k}) + tokens_s per_token,   U_s = max(U_{s-1}, G_s) + seconds_s

    None = in turns.
    """
    generated, updated = 0.0, [0.0]
    for step in range(steps):
        costs = found["tokens"][step] * per_token
        starts = updated[-1] if lead is None else updated[max(0, step - lead)]
        generated = max(generated, starts) + costs
        updated.append(max(updated[-1], generated) + found["seconds"][step])
    return updated[-1]


def cost_of_a_token(runs: Sequence[dict[str, Any]]) -> float:
    """GRPO's seconds of everything but generation per token it generates, over all its runs."""
    return sum(sum(r["seconds"]) for r in runs) / sum(sum(r["tokens"]) for r in runs)


def middle(values: Sequence[float]) -> str:
    """The median and the range; `not reached` counts as infinite."""
    words = [
        "not reached" if math.isinf(value) else significant(value)
        for value in (statistics.median(values), min(values), max(values))
    ]
    return words[0] if len(values) == 1 else f"{words[0]} ({words[1]} to {words[2]})"


def seconds_to_score(case: Case, score: float, per_token: float) -> list[float]:
    """Of each run of a way; infinite if it never got there."""
    lead = case["settings"]["staleness"]
    out = []
    for found in case["runs"]["runs"]:
        step = to_score(found, score)
        out.append(math.inf if step is None else clock(found, step, per_token, lead))
    return out


def tokens_to_score(case: Case, score: float) -> list[float]:
    """Generated tokens of each run of a way until it got there."""
    steps = [(found, to_score(found, score)) for found in case["runs"]["runs"]]
    return [math.inf if step is None else sum(found["tokens"][:step]) for found, step in steps]


def tables(records: Records, score: float, ratios: Sequence[float]) -> list[Table]:
    """Seconds to the score by ratio, once GRPO was measured."""
    cases = {name: case for name, case in records.cases.items() if case["runs"].get("runs")}
    if GRPO not in cases:
        return []
    base = cost_of_a_token(cases[GRPO]["runs"]["runs"])
    by_ratio = [
        {name: seconds_to_score(case, score, ratio * base) for name, case in cases.items()}
        for ratio in ratios
    ]
    rows = []
    for name, case in cases.items():
        row = [name, middle(tokens_to_score(case, score))]
        for seconds in by_ratio:
            row += [middle(seconds[name]), compared(seconds[name], seconds[GRPO])]
        rows.append(row)
    head = ["way", "generated tokens"]
    for ratio in ratios:
        head += [f"seconds, ratio {ratio:g}", "over GRPO's"]
    about = [*measured_on(cases[GRPO]), *explained(cases, score, base)]
    about += [best_of(ratio, seconds) for ratio, seconds in zip(ratios, by_ratio, strict=True)]
    return [Table(title=f"To a held-out pass@1 of {score:g}", about=about, head=head, rows=rows)]


def compared(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The ratio of the medians."""
    a, b = statistics.median(ours), statistics.median(theirs)
    return significant(a / b) if math.isfinite(a) and math.isfinite(b) else "not reached"


def explained(cases: dict[str, Case], score: float, base: float) -> list[str]:
    """What was run, and what generation really cost."""
    runs = cases[GRPO]["runs"]["runs"]
    real = sum(sum(r["generation"]) for r in runs) / sum(sum(r["seconds"]) for r in runs)
    lead = cases[ASYNC]["settings"]["staleness"] if ASYNC in cases else 0
    counts = ", ".join(f"{len(case['runs']['runs'])} of {name}" for name, case in cases.items())
    return [
        f"Embedded model and arithmetic task; runs: {counts}. Medians and ranges of seeds.",
        f"The clock is computed: at ratio 1 a generated token costs {base * 1e6:.0f} microseconds, "
        f"as long as the rest of GRPO's step takes for each. The real ratio here was {real:.2f}.",
        f"Async: weights {lead} steps old, ratio to the policy that sampled.",
    ]


def best_of(ratio: float, seconds: dict[str, list[float]]) -> str:
    """Which way was fastest and which were slower than GRPO at a ratio."""
    middles = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(middles, key=lambda name: middles[name])
    slower = [name for name, value in middles.items() if value > middles[GRPO]]
    if math.isinf(middles[best]):
        return f"Ratio {ratio:g}: no way reached the score."
    loss = f"slower than GRPO: {'; '.join(slower)}" if slower else "none is slower than GRPO"
    return f"Ratio {ratio:g}: fastest is {best}; {loss}."


def words_of(name: str, options: argparse.Namespace) -> list[str]:
    """The arguments of a way."""
    lead = [f"rollout.max_staleness={options.staleness}"] if name == ASYNC else []
    often = [f"eval.every={options.every}", f"eval.problems={options.problems}"]
    length = [] if options.steps is None else [f"train.steps={options.steps}"]
    on = [f"model.device={options.device}"]
    return [*WAYS[name], *lead, *often, *length, *on, *options.overrides]


def parser() -> argparse.ArgumentParser:
    """The options."""
    out = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    out.add_argument("--case", nargs="+", choices=list(WAYS), default=list(WAYS))
    out.add_argument("--repeats", type=int, default=5, help="seeds")
    out.add_argument("--steps", type=int, help="training steps; the default is the task's")
    out.add_argument("--every", type=int, default=5, help="steps between evaluations")
    out.add_argument("--problems", type=int, default=500)
    out.add_argument("--score", type=float, default=0.9)
    out.add_argument("--ratios", type=float, nargs="+", default=[1, 4, 16])
    out.add_argument("--staleness", type=int, default=2, help="of mode async, in steps")
    out.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    out.add_argument("--overrides", nargs="*", default=[], help="more words for every run")
    out.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    out.add_argument("--out", type=Path, default=RESULTS / "off_policy.json")
    return out


def main() -> None:
    """Measure what is missing, seed by seed, then print the table."""
    options = parser().parse_args()
    if options.quick:
        vars(options).update(repeats=1, steps=4, every=1, problems=16, score=0.1)
    records = Records(options.out)
    for seed in range(options.repeats):
        for name in options.case:
            lead = options.staleness if name == ASYNC else None
            words = words_of(name, options)
            settings = {"words": words, "staleness": lead}
            case = records.case(name, machine(1, options.device), settings)
            runs = case["runs"].setdefault("runs", [])
            if len(runs) > seed:
                continue
            runs.append(record(run(*words, seed=seed)))
            print(f"{name}, seed {seed}: pass@1 {runs[-1]['scores'][-1][1]:.3f} at the end")
            records.save(tables(records, options.score, options.ratios))
    records.finish(tables(records, options.score, options.ratios))


if __name__ == "__main__":
    main()
