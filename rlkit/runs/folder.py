"""The run folder: what is written where, and what a resumed run finds."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import yaml

from rlkit.errors import UserError
from rlkit.runs.checkpoint import (
    ABANDONED,
    checkpoint_step,
    list_checkpoints,
    remove_leftovers,
    step_in_name,
)
from rlkit.stored.files import write_whole
from rlkit.stored.step_files import forget_after
from rlkit.stored.write import ROLLOUTS

NONFINITE = "nonfinite"
EVALUATIONS = "evaluations"
CALLED_ONCE = "called-once"
"""Where episodes are noted that make a call which must not be made twice."""
OWN = (
    "config.yaml",
    "overrides",
    "components.json",
    "metrics.jsonl",
    "completions",
    EVALUATIONS,
    "trackers.json",
    ROLLOUTS,
)
"""What a run has written in its folder before its first step."""
COMPLETIONS = "completions"


def write(path: Path, text: str, mode: Literal["w", "a"] = "w") -> None:
    """Write or append text. Raises UserError if the system refuses (a full disk)."""
    try:
        with path.open(mode) as file:
            file.write(text)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}; make room and continue with resume=auto"
        ) from error


def as_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """One JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)


def records(text: str) -> Iterator[dict[str, Any]]:
    """The objects of metrics.jsonl, up to a line that a kill has cut short."""
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def abandoned(checkpoint: Path) -> Path:
    """The name of a checkpoint whose run has gone back to an older one; no earlier one has it."""
    first = f"{checkpoint.name}{ABANDONED}"
    names = chain([first], (f"{first}-{again}" for again in count(2)))
    return next(path for name in names if not (path := checkpoint.with_name(name)).exists())


class RunFolder:
    """`<output_dir>` and what is in it.

    config.yaml, overrides, components.json, metrics.jsonl, completions/, evaluations/ and
    checkpoint-N/.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        """Whether this process writes; only the main process does."""
        self.metrics = path / "metrics.jsonl"
        self.notes: list[str] = []
        """What the user should know about the state of the folder."""
        self._lock: int | None = None
        self._made = not path.exists()
        self._opened = False

    def holds_run(self) -> bool:
        """Whether a run trained a step here."""
        if list_checkpoints(self.path):
            return True
        return self.metrics.is_file() and any(
            record["step"] > 0 for record in records(self.metrics.read_text())
        )

    def discard_if_untrained(self) -> None:
        """Remove what a run wrote that ended before its first step was done.

        The folder goes with it if the run made it. All stays if there are responses of updates that
        were not finite, or the note of a call that must not be made twice.
        """
        keeps = any((self.path / name).exists() for name in (NONFINITE, CALLED_ONCE))
        if not self._opened or self.holds_run() or keeps:
            return
        if self._made:
            shutil.rmtree(self.path)
            return
        for name in OWN:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def lock(self) -> None:
        """Lock the folder for this process until it ends. Raises UserError if another one holds it.

        The system releases the lock when the process dies, however it dies.
        """
        if self._lock is not None or not self.writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"output_dir={self.path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise UserError(
                f"another run is using {self.path}; wait for it or choose another output_dir"
            ) from None
        self._lock = lock

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_place(self) -> None:
        """Raise UserError if the folder can neither be used nor made; nothing is made."""
        there = next(each for each in (self.path, *self.path.absolute().parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            what = "cannot be written to" if there.is_dir() else "is a file"
            raise UserError(
                f"output_dir={self.path} cannot be used: {there} {what}; choose another output_dir"
            )

    def find_checkpoint(self, resume: str) -> Path | None:
        """The checkpoint to continue from, if any.

        Raises UserError if `resume` forbids one or finds none.
        """
        if self.path.is_dir():
            self.lock()
        if resume == "never":
            if self.holds_run():
                raise UserError(
                    f"{self.path} already holds a run; "
                    "continue it with resume=auto or choose another output_dir"
                )
            return None
        if resume == "auto":
            return self._newest_whole()
        path = Path(resume)
        if not path.is_dir():
            raise UserError(
                f"resume={resume}: there is no such folder; use never, auto or a checkpoint folder"
            )
        inside = list_checkpoints(path)
        checkpoint = inside[-1] if inside else path
        checkpoint_step(checkpoint)
        if self.holds_run() and checkpoint.resolve().parent != self.path.resolve():
            raise UserError(
                f"{self.path} already holds another run; continue {checkpoint} in an output_dir of "
                "its own"
            )
        return checkpoint

    def _newest_whole(self) -> Path | None:
        """The newest checkpoint whose files match its manifest; damaged ones are noted."""
        found = list_checkpoints(self.path)
        for checkpoint in reversed(found):
            try:
                checkpoint_step(checkpoint)
            except UserError as error:
                self.notes.append(f"{error}.")
                continue
            if self.notes:
                self.notes.append(f"Continuing from {checkpoint}.")
            return checkpoint
        if found:
            raise UserError(
                f"no checkpoint in {self.path} is intact ({self.notes[0].rstrip('.')}); start over "
                "in another output_dir"
            )
        self.notes.append(f"resume=auto found no checkpoint in {self.path}: starting over.")
        return None

    def open(
        self,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        components: Mapping[str, Any],
        step: int,
    ) -> list[str]:
        """Create the folder, describe the run in it, take back what it holds of later steps.

        Returns what the user should know of that.
        """
        if not self.writes:
            return []
        self.lock()
        self._opened = True
        self.tidy()
        (self.path / COMPLETIONS).mkdir(parents=True, exist_ok=True)
        told = self._set_aside_after(step)
        write_whole(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        write_whole(self.path / "overrides", "".join(f"{line}\n" for line in overrides))
        write_whole(self.path / "components.json", json.dumps(components, indent=1))
        before = self.metrics.read_text() if step > 0 and self.metrics.exists() else ""
        kept = [record for record in records(before) if record["step"] <= step]
        write_whole(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))
        for name in (COMPLETIONS, ROLLOUTS, EVALUATIONS):
            forget_after(self.path / name, step)
        return told

    def _set_aside_after(self, step: int) -> list[str]:
        """Take their names from checkpoints of later steps than the one that is continued.

        They are damaged, or of a run that this one leaves; under their names they would be the
        newest, and the ones to keep.
        """
        told: list[str] = []
        for path in list_checkpoints(self.path):
            if step_in_name(path) > step:
                aside = abandoned(path)
                told.append(
                    f"{path} is of a later step than the one continued from: kept as {aside.name}."
                )
                try:
                    path.rename(aside)
                except OSError as error:
                    raise UserError(f"{path} cannot be renamed: {error.strerror}") from error
        return told

    def tidy(self) -> None:
        """Remove what a killed run had begun to write or remove."""
        if self.writes:
            remove_leftovers(self.path)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one object to metrics.jsonl."""
        if self.writes:
            write(self.metrics, json.dumps({"step": step, **metrics}) + "\n", "a")

    def first_and_last(self, key: str) -> tuple[float, float]:
        """The first and the last logged value of a metric."""
        records = [json.loads(line) for line in self.metrics.read_text().splitlines()]
        values = [record[key] for record in records if key in record]
        return values[0], values[-1]

    def write_completions(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the responses a step trained on."""
        if self.writes:
            write(self.path / COMPLETIONS / f"step-{step}.jsonl", as_lines(rows))

    def write_nonfinite(self, step: int, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write the responses of updates that were skipped."""
        path = self.path / NONFINITE / f"step-{step}.jsonl"
        if self.writes:
            path.parent.mkdir(exist_ok=True)
            write(path, as_lines(rows))
        return path

    def tracker_ids(self) -> dict[str, str]:
        """The ids under which trackers continue this run."""
        path = self.path / "trackers.json"
        ids: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return ids

    def save_tracker_ids(self, ids: Mapping[str, str]) -> None:
        """Remember them."""
        if ids and self.writes:
            write_whole(self.path / "trackers.json", json.dumps(ids))
