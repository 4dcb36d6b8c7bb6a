"""What a terminal or a log file shows of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from rlkit.interfaces import PartConfig, Tracker
from rlkit.registry import register

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

SHOWN = (
    ("reward", "reward/mean", "{:.3f}"),
    ("pass@1", "eval/pass@1", "{:.3f}"),
    ("rollouts", "rollouts/total", "{:.0f}"),
    ("s/step", "time/step", "{:.1f}"),
)
"""Label, metric and format of the values beside the bar; a value not seen yet is left out."""


WIDE = 70
"""Columns of a terminal that leave room for a bar beside the step and the figures."""


def figures(latest: Mapping[str, float]) -> str:
    """The latest values on one line: "reward 0.531 pass@1 0.250 rollouts 3072 s/step 2.1"."""
    return "  ".join(
        f"{label} {form.format(latest[key])}" for label, key, form in SHOWN if key in latest
    )


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def remaining(done: int, left: int, elapsed: float) -> float | None:
    """Seconds to the end if the `left` steps go as the `done` ones did; None before the first."""
    return elapsed / done * left if done > 0 else None


class ConsoleConfig(PartConfig):
    """Settings of the console."""

    every_seconds: Annotated[float, Field(ge=0)] = 5.0
    """Without a terminal, the least time between lines; an evaluation and the last step always get
    one."""


@register("tracker", "console")
class ConsoleTracker(Tracker[ConsoleConfig]):
    """A progress bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, config: ConsoleConfig | None = None) -> None:
        super().__init__(config)
        self._console: Console | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._steps = 0
        self._first: int | None = None
        self._latest: dict[str, float] = {}
        self._last: int | None = None
        """The last step that was logged."""
        self._shown: int | None = None
        """The last step that has a line."""
        self._started = self._printed = time.monotonic()

    @property
    def console(self) -> Console:
        """Rich's console on standard output."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(highlight=False)
        return self._console

    def start(self, run_dir: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Learn how many steps the run has."""
        self._steps = int(config["train"]["steps"])
        self.message(f"Run folder: {run_dir}")
        return None

    def begin(self, step: int) -> None:
        """On a terminal, show the bar."""
        if self.console.is_terminal:
            self._open_bar(step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print a line for an evaluation, or when one is due; move the bar.

        The last step has an evaluation, and its one line is that of both.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = step - int("time/step" in metrics)
            self._started = now - metrics.get("time/step", 0.0)
        self._latest.update(metrics)
        self._last = step
        evaluated = any(key.startswith("eval/") for key in metrics)
        due = not self.console.is_terminal and now - self._printed >= self.config.every_seconds
        if evaluated or (due and step < self._steps):
            self._printed, self._shown = now, step
            self.message(self.line(step))
        if self.console.is_terminal:
            self._advance(step)

    def line(self, step: int) -> str:
        """A step in one line: where the run is, the latest values, the time left."""
        left = self._time_left(step)
        ending = f"  left {duration(left)}" if left else ""
        return f"step {step}/{self._steps}  {figures(self._latest)}{ending}"

    def message(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(text, markup=False, soft_wrap=True)

    def progress(self, task: str, done: int, of: int) -> None:
        """Show how far a task is beside the bar, or on a line when one is due."""
        text = f"{task} {done} of {of}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, figures=text, left="", refresh=True)
            return
        now = time.monotonic()
        if not self.console.is_terminal and now - self._printed >= self.config.every_seconds:
            self._printed = now
            self.message(text)

    def close(self, *, failed: bool) -> None:
        """Remove the bar from the terminal; the last step stays, on a line."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._last is not None and self._last != self._shown:
            self._shown = self._last
            self.message(self.line(self._last))

    def _time_left(self, step: int) -> float | None:
        done = step - (self._first or 0)
        return remaining(done, self._steps - step, time.monotonic() - self._started)

    def _advance(self, step: int) -> None:
        if self._bar is None:
            self._open_bar(step)
        assert self._bar is not None and self._task is not None
        left = self._time_left(step)
        self._bar.update(
            self._task,
            completed=step,
            figures=figures(self._latest),
            left=f"left {duration(left)}" if left else "",
        )

    def _open_bar(self, step: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        counter = 2 * len(str(self._steps)) + 1
        rest = Column(no_wrap=True, overflow="ellipsis")
        self._bar = Progress(
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=counter)),
            *((BarColumn(bar_width=20),) if self.console.width >= WIDE else ()),
            TextColumn("{task.fields[figures]}", markup=False, table_column=rest),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task(
            "train", total=self._steps, completed=step, figures="", left=""
        )
        self._bar.start()
