"""One stored data set, several losses: held-out pass@1 after training on it from the base model.

    python benchmarks/offline_ablation.py --repeats 5
    python benchmarks/offline_ablation.py --quick --out /tmp/offline_ablation.json

A GRPO run of the embedded model stores its responses. Then each loss is trained on them by
`+experiment=offline_ablation`: the same base model, the same responses, nothing generated. Fifty
steps are one pass over the set. A seed draws the order of the groups, the same for every loss, so
differences to GRPO are taken seed by seed. There is one set, so the spread is that of the order
alone. Nothing is timed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from bench import RESULTS, Run, run
from records import Case, Records, Table, listed, machine, measured_on

GRPO = "GRPO"
LOSSES: dict[str, list[str]] = {
    GRPO: ["algorithm=grpo"],
    "PPO-clip": ["algorithm=ppo", "train.prompts_per_step=16"],
    "BAPO": ["algorithm=bapo"],
    "TOPR": ["algorithm=topr"],
    "AsymRE": ["algorithm=asymre"],
    "OAPL": ["algorithm=oapl"],
    "OAPL, loss.beta2=0.03": ["algorithm=oapl", "loss.beta2=0.03"],
    "GRPO, ratio to the behavior policy": ["algorithm=grpo", "loss=grpo_behavior"],
}
"""PPO's own setting is for one response per prompt. The last two are no shipped compositions: what
the embedded model needs of OAPL (see `experiment=oapl_lag`), and GRPO with the denominator of the
off-policy losses."""
SOURCE = 0
"""The seed of the base model, and of the run that stores."""


def store(options: argparse.Namespace, folder: Path) -> Run:
    """The run that stores its responses."""
    kept = ("rollout.save=true", f"train.steps={options.source_steps}")
    return run("algorithm=grpo", *kept, *often(options), seed=SOURCE, out=folder)


def often(options: argparse.Namespace) -> list[str]:
    """What every run is given."""
    return [
        f"eval.every={options.every}",
        f"eval.problems={options.problems}",
        "checkpoint.every=null",
        *options.overrides,
    ]


def trained(name: str, options: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """A loss trained on the stored responses: its evaluations."""
    words = ["+experiment=offline_ablation", f"buffer.path={folder}", *LOSSES[name]]
    words += [f"train.steps={options.steps}", *often(options)]
    done = run(*words, seed=seed, base_seed=SOURCE)
    if done.steps[-1]["rollouts/total"] != 0:
        raise SystemExit(f"{name}, seed {seed}: responses were generated")
    return {"seed": seed, "scores": done.values("eval/pass@1")}


def quartiles(values: Sequence[float]) -> str:
    """`median (lower quartile to upper quartile)`, or the value alone if there is one."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def last(runs: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """The score after training, by seed."""
    return {found["seed"]: found["scores"][-1][1] for found in runs}


def differences(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Ours less theirs, of the seeds that both have."""
    return [ours[seed] - theirs[seed] for seed in sorted({*ours} & {*theirs})]


def tables(records: Records) -> list[Table]:
    """One row per loss, once GRPO was trained."""
    cases = {name: case for name, case in records.cases.items() if case["runs"].get("runs")}
    if GRPO not in cases:
        return []
    base = last(cases[GRPO]["runs"]["runs"])
    rows = []
    for name, case in cases.items():
        runs = case["runs"]["runs"]
        best = [max(value for _, value in found["scores"]) for found in runs]
        gained = differences(last(runs), base)
        signs = f"{sum(d > 0 for d in gained)} of {len(gained)}"
        versus = ["", ""] if name == GRPO else [quartiles(gained), signs]
        after = quartiles([*last(runs).values()])
        rows.append([name, str(len(runs)), after, quartiles(best), *versus])
    head = ["loss", "seeds", "after training", "best evaluation", "less GRPO's, seed by seed"]
    return [
        Table(
            title="Held-out pass@1",
            about=explained(cases[GRPO]),
            head=[*head, "better than GRPO"],
            rows=rows,
        )
    ]


def explained(case: Case) -> list[str]:
    """What was run, and where it began."""
    settings = case["settings"]
    before = case["runs"]["runs"][0]["scores"][0][1]
    about = {name: settings[name] for name in ("steps", "every", "problems")}
    return [
        *measured_on(case),
        f"The set: {settings['responses']} responses of {settings['source_steps']} GRPO steps, "
        f"pass@1 {settings['source_scores'][0]:.3f} before and {settings['source_scores'][-1]:.3f} "
        "after them.",
        f"Before training {before:.3f}. Median (quartiles) over the seeds. {listed(about)}",
    ]


def parser() -> argparse.ArgumentParser:
    """The options."""
    out = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    out.add_argument("--case", nargs="+", choices=list(LOSSES), default=list(LOSSES))
    out.add_argument("--repeats", type=int, default=5, help="seeds")
    out.add_argument("--source-steps", type=int, default=50, help="of the run that stores")
    out.add_argument("--steps", type=int, default=50, help="of each run that trains on it")
    out.add_argument("--every", type=int, default=25, help="steps between evaluations")
    out.add_argument("--problems", type=int, default=300)
    out.add_argument("--processes", type=int, default=1, help="runs at a time")
    out.add_argument("--overrides", nargs="*", default=[], help="more words for every run")
    out.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    out.add_argument("--out", type=Path, default=RESULTS / "offline_ablation.json")
    return out


def main() -> None:
    """Store a set, train on it what is missing, seed by seed, and print the table."""
    options = parser().parse_args()
    if options.quick:
        vars(options).update(repeats=1, source_steps=2, steps=2, every=1, problems=16)
    records = Records(options.out)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "source"
        source = store(options, folder)
        settings = {
            "source_steps": options.source_steps,
            "source_scores": [value for _, value in source.values("eval/pass@1")],
            "responses": source.steps[-1]["rollouts/total"],
            **{name: getattr(options, name) for name in ("steps", "every", "problems")},
            "overrides": options.overrides,
        }
        missing = []
        for seed, name in itertools.product(range(options.repeats), options.case):
            case = records.case(name, machine(1), {**settings, "words": LOSSES[name]})
            if seed not in {found["seed"] for found in case["runs"].setdefault("runs", [])}:
                missing.append((name, seed))
        with ThreadPoolExecutor(options.processes) as pool:
            jobs = {pool.submit(trained, n, options, folder, seed): n for n, seed in missing}
            for job in as_completed(jobs):
                records.cases[jobs[job]]["runs"]["runs"].append(job.result())
                records.save(tables(records))
    records.finish(tables(records))


if __name__ == "__main__":
    main()
