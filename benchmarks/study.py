"""Run a study: a grid of variants and seeds, each a run through the command line.

    python benchmarks/study.py benchmarks/studies/table3.yaml
    python benchmarks/study.py benchmarks/studies/table3.yaml --resume --minutes 60

First the sweep of learning rates on the tuning seeds, the same for every variant, then the runs
that count with the rate that was best. What was killed continues with --resume: finished runs stay,
an unfinished one goes on from its checkpoint. After each run benchmarks/results/studies/<name>
.parquet is written; what it holds already is kept and not run again. From it `python
docs/evidence.py` makes docs/evidence.md. The run folders stay under runs/studies/<name>, with a
page that compares the reported runs.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench import RESULTS, ROOT, status_of
from study_figures import chosen_rates, reported, scores, spread
from study_file import Study, read_study
from study_results import Row, Run, check_unchanged, read_results, write_results
from study_runs import (
    Job,
    Runner,
    finished,
    reporting_jobs,
    rows_of,
    tuning_jobs,
)

from rlkit.errors import UserError
from rlkit.pages.comparison import read_runs
from rlkit.pages.comparison_page import write_comparison
from rlkit.pages.figures import compare

INTERRUPTED = 130
PAGE = "comparison.html"


class Progress:
    """Writes the results after each run, and says how far the study is."""

    def __init__(self, study: Study, place: Path, out: Path) -> None:
        self.study, self.place, self.out = study, place, out
        self.rows: dict[Job, list[Row]] = {}
        """Of the finished runs that were read."""
        self.stored: dict[Run, list[Row]] = {}
        """Of the runs that the results had before."""
        for row in read_results(out)[1] if out.is_file() else ():
            self.stored.setdefault(row.run, []).append(row)

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that came to no end, neither here nor where the results are from."""
        return [
            each
            for each in jobs
            if each.run not in self.stored and not finished(self.place / each.folder)
        ]

    def collect(self, jobs: Sequence[Job]) -> list[Row]:
        """The rows of all finished runs among the jobs."""
        for each in jobs:
            if each not in self.rows and finished(self.place / each.folder):
                self.rows[each] = list(rows_of(each, self.study, self.place / each.folder))
        found = (self.rows.get(each) or self.stored.get(each.run) or [] for each in jobs)
        return [row for rows in found for row in rows]

    def check(self) -> None:
        """Raise UserError if the results hold a run that is none of the study's."""
        strange = self.stored.keys() - {each.run for each in self.jobs()}
        for phase, variant, _, _, seed, _ in sorted(strange, key=str):
            raise UserError(
                f"{self.out} holds a {phase} run of {variant}, seed {seed}, that is none of this "
                "study's: other words or another learning rate; move the file away, or name "
                "another --out"
            )

    def jobs(self) -> list[Job]:
        """The sweep, and the runs that count as far as their learning rates are known."""
        sweep = tuning_jobs(self.study)
        rates = chosen_rates(self.study, self.collect(sweep))
        return [*sweep, *reporting_jobs(self.study, rates)]

    def save(self, jobs: Sequence[Job]) -> None:
        """Write what there is."""
        write_results(self.out, self.study, self.collect(jobs))

    def done(self, jobs: Sequence[Job]) -> int:
        """How many of the jobs are finished."""
        return len(jobs) - len(self.missing(jobs))

    def tell(self, done: Job, left: int) -> None:
        """A line for a run that has come to its end."""
        rows = self.collect([done])
        rate = "" if done.learning_rate is None else f", learning rate {done.learning_rate:g}"
        at = "" if done.at is None else f", at {done.at:g}"
        print(
            f"{done.phase}: {done.variant}{at}{rate}, seed {done.seed}: {self.study.metric.key} "
            f"{rows[-1].score:.3f} at its end{', stopped early' if rows[-1].stopped else ''}; "
            f"{left} left",
            flush=True,
        )


def wanted(jobs: Sequence[Job], options: argparse.Namespace) -> list[Job]:
    """The jobs that this call is about."""
    return [
        each
        for each in jobs
        if (options.variant is None or each.variant in options.variant)
        and (options.phase is None or each.phase == options.phase)
        and (options.seeds is None or each.phase == "tuning" or each.seed in options.seeds)
    ]


def planned(study: Study, options: argparse.Namespace) -> tuple[int, int]:
    """How many runs of the sweep, and that count, this call is about, whatever their rates."""
    rates = dict.fromkeys((study.source_of_rate(*cell) for cell in study.cells), 1.0)
    sweep, report = tuning_jobs(study), reporting_jobs(study, rates)
    return len(wanted(sweep, options)), len(wanted(report, options))


def plan(study: Study, options: argparse.Namespace, place: Path, out: Path) -> None:
    """Say what would be run, and about how long it takes."""
    counts = planned(study, options)
    progress = Progress(study, place, out)
    done = progress.done(wanted(progress.jobs(), options))
    print(
        f"{study.name}: {counts[0]} runs of the sweep and {counts[1]} that count, about "
        f"{sum(counts) * study.minutes_per_run:.0f} processor minutes; {done} are finished"
    )


def run_all(progress: Progress, runner: Runner, options: argparse.Namespace) -> None:
    """The sweep, then the runs that count."""
    study, until = progress.study, time.monotonic() + 60 * options.minutes

    def after(done: Job) -> None:
        every = progress.jobs()
        progress.save(every)
        progress.tell(done, sum(planned(study, options)) - progress.done(wanted(every, options)))
        if time.monotonic() > until:
            raise TimeoutError

    if study.prepare:
        runner.prepare(
            [
                [word.replace("{seed}", str(seed)) for word in study.prepare]
                for seed in prepared_seeds(study)
            ]
        )
    runner.run(progress.missing(wanted(tuning_jobs(study), options)), after)
    runner.run(progress.missing(wanted(progress.jobs(), options)), after)
    progress.save(progress.jobs())


def prepared_seeds(study: Study) -> Sequence[int]:
    """The seeds that `prepare` is run for: one, unless its words name the seed."""
    seeds = [*(study.tuning.seeds if study.tuning else ()), *study.reporting.seeds]
    return seeds if any("{seed}" in word for word in study.prepare) else seeds[:1]


def show(progress: Progress) -> None:
    """The scores, and a page that compares the reported runs."""
    jobs = [each for each in progress.jobs() if each.phase == "reporting"]
    rows = progress.collect(jobs)
    for (variant, at), runs in reported(rows).items():
        found = spread([*scores(runs, progress.study.metric).values()])
        where = "" if at is None else f" at {at:g}"
        print(f"{variant}{where}: {found.middle:.3f} ({found.low:.3f} to {found.high:.3f})")
    folders = [progress.place / each.folder for each in jobs]
    if done := [folder for folder in folders if finished(folder)]:
        print(f"Page: {write_comparison(compare(read_runs(done)), progress.place / PAGE)}")


def parser() -> argparse.ArgumentParser:
    """The options."""
    out = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    out.add_argument("study", type=Path, help="a file of benchmarks/studies/")
    out.add_argument("--resume", action="store_true", help="continue a study that has runs")
    out.add_argument("--workers", type=int, default=2, help="runs at a time, of one thread each")
    out.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    out.add_argument("--variant", nargs="+", help="only these")
    out.add_argument("--phase", choices=["tuning", "reporting"], help="only these runs")
    out.add_argument("--seeds", nargs="+", type=int, help="only these of the seeds that count")
    out.add_argument("--plan", action="store_true", help="count the runs and stop")
    out.add_argument("--runs", type=Path, default=ROOT / "runs" / "studies")
    out.add_argument("--out", type=Path, default=RESULTS / "studies", help="of the Parquet file")
    return out


def checked_options(arguments: Sequence[str] | None) -> tuple[Study, argparse.Namespace]:
    """The study and the options. Raises UserError for what does not fit."""
    options = parser().parse_args(arguments)
    study = read_study(options.study)
    for name in options.variant or ():
        if name not in study.variants:
            raise UserError(f"--variant {name} is none of: {', '.join(study.variants)}")
    return study, options


def terminated(_signal: int, _frame: FrameType | None) -> None:
    """A terminated study stops as with Ctrl-C."""
    raise KeyboardInterrupt


def execute(arguments: Sequence[str] | None) -> int:
    """Run the study of the arguments. Raises UserError for what cannot be run."""
    study, options = checked_options(arguments)
    place, out = options.runs.resolve() / study.name, options.out / f"{study.name}.parquet"
    if options.plan:
        plan(study, options, place, out)
        return 0
    check_unchanged(study, out)
    if place.is_dir() and not options.resume:
        raise UserError(f"{place} holds runs; continue with --resume, or name another --runs")
    progress, runner = Progress(study, place, out), Runner(place, options.workers)
    progress.check()
    signal.signal(signal.SIGTERM, terminated)
    try:
        run_all(progress, runner, options)
    except KeyboardInterrupt:
        print("Stopped; continue with --resume", file=sys.stderr)
        return INTERRUPTED
    except TimeoutError:
        print(f"{options.minutes:g} minutes are over; continue with --resume")
    show(progress)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study; errors are one line and status 2."""
    return status_of(lambda: execute(arguments))


if __name__ == "__main__":
    sys.exit(main())
