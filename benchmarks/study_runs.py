"""The runs of a study: which there are, how one is run or continued, and what is kept of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from records import ROOT, machine, source_hash
from study_file import Cell, Study
from study_results import Row, Run

from rlkit.errors import UserError
from rlkit.runs.records import ROLLOUTS, SECONDS, STEP, TOKENS, Record, read_run
from rlkit.stored.files import write_whole

Phase = Literal["tuning", "reporting"]
Work = TypeVar("Work")
DIVERGED = "in a row had a loss or gradient"
"""What a run says that stops because its numbers are not finite: a result, not a mistake."""
DONE = "study_run.json"
"""What says that a run came to its end, and how; beside its metrics."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to be made."""

    phase: Phase
    variant: str
    at: float | None
    """The value of the study's axis."""
    learning_rate: float | None
    seed: int
    words: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Another one if any word differs."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:10]

    @property
    def run(self) -> Run:
        """Its rows are known by it."""
        return self.phase, self.variant, self.at, self.learning_rate, self.seed, self.digest

    @property
    def folder(self) -> str:
        """Its name among the runs."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.variant.lower()).strip("-")
        place = "" if self.at is None else f"-at{self.at:g}"
        return f"{self.phase}/{plain}{place}-seed{self.seed}-{self.digest}"


def job(
    study: Study, phase: Phase, variant: str, at: float | None, rate: float | None, seed: int
) -> Job:
    """A run of the study."""
    own = study.tuning.overrides if phase == "tuning" and study.tuning else ()
    own = study.reporting.overrides if phase == "reporting" else own
    words = [*study.overrides, *own, *study.variants[variant].overrides]
    words += [f"{study.axis.key}={at:g}"] if study.axis and at is not None else []
    words += [f"train.learning_rate={rate:g}"] if rate is not None else []
    given = tuple(word.replace("{seed}", str(seed)) for word in [*words, "seed={seed}"])
    return Job(phase=phase, variant=variant, at=at, learning_rate=rate, seed=seed, words=given)


def tuning_jobs(study: Study) -> list[Job]:
    """The sweep, seed by seed, of everything that has one of its own."""
    if study.tuning is None:
        return []
    tuned = dict.fromkeys(study.source_of_rate(*cell) for cell in study.cells)
    return [
        job(study, "tuning", *cell, rate, seed)
        for seed in study.tuning.seeds
        for cell in tuned
        for rate in study.tuning.learning_rates
    ]


def reporting_jobs(study: Study, rates: Mapping[Cell, float]) -> list[Job]:
    """The runs that count, seed by seed, of those whose learning rate is known."""
    sources = {cell: study.source_of_rate(*cell) for cell in study.cells}
    known = [cell for cell in study.cells if study.tuning is None or sources[cell] in rates]
    return [
        job(study, "reporting", *cell, rates.get(sources[cell]), seed)
        for seed in study.reporting.seeds
        for cell in known
    ]


def finished(folder: Path) -> bool:
    """Whether a run came to its end, which may be that it could not go on."""
    return (folder / DONE).is_file()


class Runner:
    """Runs jobs as processes of their own, so many at a time, each with one thread."""

    def __init__(self, place: Path, workers: int) -> None:
        self.place = place
        self.workers = workers
        self.running: set[subprocess.Popen[str]] = set()
        self.lock = threading.Lock()
        self.stopping = False

    def run(self, jobs: Sequence[Job], after: Callable[[Job], None]) -> None:
        """Run what is not finished. `after` is called, in this thread, after each that ends.

        On Ctrl-C the runs save a checkpoint, and KeyboardInterrupt is raised.

        Raises UserError with what a run says that cannot begin.
        """
        missing = [each for each in jobs if not finished(self.place / each.folder)]
        self._at_once(self._one, missing, after)

    def prepare(self, calls: Sequence[Sequence[str]]) -> None:
        """Run Python on the words of each call. Raises UserError with what one says if it fails."""
        self._at_once(self._script, calls, lambda _: None)

    def _at_once(
        self, work: Callable[[Work], bool], all_of: Sequence[Work], after: Callable[[Work], None]
    ) -> None:
        """Do some at a time; `after` is called, in this thread, after each that is done."""
        with ThreadPoolExecutor(self.workers) as pool:
            futures = {pool.submit(work, each): each for each in all_of}
            try:
                for done in as_completed(futures):
                    if done.result():
                        after(futures[done])
            except BaseException:
                self.stop()
                pool.shutdown(cancel_futures=True)
                raise

    def stop(self) -> None:
        """Tell the running processes to save a checkpoint and end."""
        self.stopping = True
        with self.lock:
            for process in self.running:
                process.terminate()

    def _one(self, each: Job) -> bool:
        """Whether the run came to its end."""
        folder = self.place / each.folder
        wait_for(folder)
        status, error = self._call(
            [sys.executable, "-m", "rlkit.run", *each.words, "resume=auto", f"output_dir={folder}"]
        )
        if self.stopping:
            return False
        said = " ".join(error.split()) if status else ""
        if status and DIVERGED not in said:
            raise UserError(
                f"{each.variant}, seed {each.seed}, failed with status {status}: {said}"
            )
        kept = {"stopped": said, "source": source_hash(), **machine(1)}
        write_whole(folder / DONE, json.dumps({**kept, "words": each.words}, indent=1) + "\n")
        return True

    def _script(self, words: Sequence[str]) -> bool:
        status, error = self._call([sys.executable, *words])
        if status and not self.stopping:
            raise UserError(f"{' '.join(words)} failed: {' '.join(error.split())}")
        return not status

    def _call(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a process; its status, and the end of what it says of errors."""
        with self.lock:
            if self.stopping:
                return 1, ""
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C reaches it once, from `stop`
            )
            self.running.add(process)
        _, error = process.communicate()
        with self.lock:
            self.running.discard(process)
        return process.returncode, error[-1000:]


def wait_for(folder: Path) -> None:
    """Wait for a run that a killed study has left running in the folder: it holds its lock."""
    if not folder.is_dir():
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
    finally:
        os.close(place)


def rows_of(each: Job, study: Study, folder: Path) -> Iterator[Row]:
    """The evaluations of a finished run."""
    done = json.loads((folder / DONE).read_text())
    since: list[Record] = []
    generation = 0.0
    for record in read_run(folder).records:
        if "time/step" in record:
            since.append(record)
            generation += record.get("time/rollout", 0.0)
        if study.metric.key not in record:
            continue
        yield Row(
            phase=each.phase,
            variant=each.variant,
            at=each.at,
            learning_rate=each.learning_rate,
            seed=each.seed,
            words=each.digest,
            step=int(record[STEP]),
            score=record[study.metric.key],
            responses=record[ROLLOUTS],
            tokens=record[TOKENS],
            seconds=record[SECONDS],
            generation_seconds=generation,
            clip_fraction=mean(since, "policy/clip_fraction"),
            entropy=mean(since, "policy/entropy"),
            length=record.get("eval/mean_length"),
            stopped=done["stopped"],
            source=done["source"],
            processor=done["processor"],
        )
        since = []


def mean(records: Sequence[Record], key: str) -> float | None:
    """The mean of a metric over the records that have it."""
    values = [record[key] for record in records if key in record]
    return sum(values) / len(values) if values else None
