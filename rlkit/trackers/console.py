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
    """Without a terminal, the least time between lines; an evaluation always gets one."""


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

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Move the bar, or print a line when one is due."""
        now = time.monotonic()
        if self._first is None:
            self._first = step - int("time/step" in metrics)
            self._started = now - metrics.get("time/step", 0.0)
        self._latest.update(metrics)
        if self.console.is_terminal:
            self._advance(step)
            return
        evaluated = any(key.startswith("eval/") for key in metrics)
        if evaluated or now - self._printed >= self.config.every_seconds:
            self._printed = now
            self.message(self.line(step))

    def line(self, step: int) -> str:
        """A step in one line: where the run is, the latest values, the time left."""
        left = self._time_left(step)
        ending = f"  left {duration(left)}" if left else ""
        return f"step {step}/{self._steps}  {figures(self._latest)}{ending}"

    def message(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(text, markup=False, soft_wrap=True)

    def close(self, *, failed: bool) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _time_left(self, step: int) -> float | None:
        done = step - (self._first or 0)
        return remaining(done, self._steps - step, time.monotonic() - self._started)

    def _advance(self, step: int) -> None:
        if self._bar is None:
            self._open_bar()
        assert self._bar is not None and self._task is not None
        left = self._time_left(step)
        self._bar.update(
            self._task,
            completed=step,
            figures=figures(self._latest),
            left=f"left {duration(left)}" if left else "",
        )

    def _open_bar(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        self._bar = Progress(
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}", markup=False),
            TextColumn("{task.fields[left]}"),
            console=self.console,
        )
        self._task = self._bar.add_task("train", total=self._steps, figures="", left="")
        self._bar.start()
