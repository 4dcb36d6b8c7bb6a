"""The console: what is printed, when, and that the terminal is left in order."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from rlkit import build
from rlkit.trackers.console import ConsoleConfig, ConsoleTracker, duration, figures, remaining

CONFIG = {"train": {"steps": 10}}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("rlkit.trackers.console.time", SimpleNamespace(monotonic=clock))
    return clock


def tracker(
    terminal: bool, every_seconds: float = 5.0, width: int = 80
) -> tuple[ConsoleTracker, io.StringIO]:
    out = io.StringIO()
    made = ConsoleTracker(ConsoleConfig(every_seconds=every_seconds))
    made._console = Console(file=out, force_terminal=terminal, width=width, color_system=None)
    return made, out


def test_figures_keep_their_order_and_leave_out_what_was_not_seen():
    seen = {"eval/pass@1": 0.25, "reward/mean": 0.5312, "other": 9.0, "rollouts/total": 3072}
    assert figures(seen) == "reward 0.531  pass@1 0.250  rollouts 3072"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3725, "1:02:05")]
)
def test_durations_read_as_a_clock(seconds, text):
    assert duration(seconds) == text


def test_the_time_left_follows_the_pace_so_far():
    assert remaining(done=4, left=6, elapsed=8.0) == 12.0
    assert remaining(done=0, left=6, elapsed=8.0) is None


def test_without_a_terminal_lines_come_at_intervals_and_at_evaluations(clock):
    made, out = tracker(terminal=False)
    made.start("runs/x", CONFIG, None)
    for step, now in ((1, 102.0), (2, 104.0), (3, 106.0), (4, 108.0)):
        clock.now = now
        made.log(step, {"reward/mean": step / 10, "time/step": 2.0})
    made.log(4, {"eval/pass@1": 0.5})
    assert out.getvalue().splitlines() == [
        "Run folder: runs/x",
        "step 3/10  reward 0.300  s/step 2.0  left 0:14",
        "step 4/10  reward 0.400  pass@1 0.500  s/step 2.0  left 0:12",
    ]


def test_the_latest_evaluation_stays_in_sight_on_later_lines(clock):
    made, out = tracker(terminal=False, every_seconds=0)
    made.start("runs/x", CONFIG, None)
    made.log(0, {"eval/pass@1": 0.125})
    made.log(1, {"reward/mean": 0.5, "time/step": 1.0})
    assert "pass@1 0.125" in out.getvalue().splitlines()[-1]


def test_a_resumed_run_estimates_from_its_own_steps_only(clock):
    made, out = tracker(terminal=False, every_seconds=0)
    made.start("runs/x", CONFIG, None)
    clock.now = 130.0
    made.log(8, {"time/step": 3.0})
    assert out.getvalue().splitlines()[-1].endswith("left 0:06")


def test_on_a_terminal_of_80_columns_a_bar_shows_the_step_and_every_figure(clock):
    made, out = tracker(terminal=True)
    made.start("runs/x", {"train": {"steps": 200}}, None)
    metrics = {"reward/mean": 0.75, "rollouts/total": 30720, "time/step": 12.0}
    made.log(150, {"eval/pass@1": 0.25, **metrics})
    made.close(failed=False)
    bar = out.getvalue()
    assert "150/200" in bar
    assert "reward 0.750  pass@1 0.250  rollouts 30720  s/step 12.0 left 10:00" in bar


def test_messages_are_printed_as_they_are_also_before_the_start():
    made, out = tracker(terminal=False)
    made.message("reward=[math] [bold]x[/bold] " + "y" * 300)
    assert out.getvalue() == "reward=[math] [bold]x[/bold] " + "y" * 300 + "\n"


def shown(out: io.StringIO) -> list[str]:
    """What was drawn, one entry per line or redraw of the bar, without control codes."""
    plain = re.sub(r"\x1b\[[?0-9]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n")
    return [line.strip() for line in plain.split("\n") if line.strip()]


@pytest.mark.parametrize("width", [30, 50])
def test_a_narrow_terminal_keeps_the_step(width):
    made, out = tracker(terminal=True, width=width)
    made.start("runs/x", {"train": {"steps": 20000}}, None)
    metrics = {"reward/mean": 0.75, "rollouts/total": 30720, "time/step": 12.0}
    made.log(150, metrics)
    made.close(failed=False)
    assert any(line.startswith("150/20000 reward") for line in shown(out)), shown(out)


def test_the_bar_of_a_resumed_run_starts_at_its_step_before_any_is_done():
    made, out = tracker(terminal=True)
    made.start("runs/x", CONFIG, None)
    made.begin(6)
    made.progress("evaluating", 3, 8)
    made.close(failed=True)
    assert shown(out)[1] == "6/10" or shown(out)[1].startswith("6/10 ")
    assert any(line.startswith("6/10") and "evaluating 3 of 8" in line for line in shown(out))


def test_on_a_terminal_evaluations_stay_above_the_bar_and_the_last_step_comes_once():
    made, out = tracker(terminal=True)
    made.start("runs/x", CONFIG, None)
    made.begin(0)
    made.log(5, {"eval/pass@1": 0.25})
    for step in (9, 10):
        made.log(step, {"reward/mean": 0.5, "time/step": 1.0})
    made.log(10, {"eval/pass@1": 0.75})
    made.close(failed=False)
    lines = [line for line in shown(out) if line.startswith("step ")]
    assert lines == [
        "step 5/10  pass@1 0.250",
        "step 10/10  reward 0.500  pass@1 0.750  s/step 1.0",
    ]
    assert made._bar is None and out.getvalue().count("\x1b[?25h") == 1


def test_without_a_terminal_the_last_step_comes_once_and_a_stopped_run_shows_its_last(clock):
    made, out = tracker(terminal=False, every_seconds=0)
    made.start("runs/x", {"train": {"steps": 2}}, None)
    made.log(2, {"reward/mean": 0.5, "time/step": 1.0})
    made.log(2, {"eval/pass@1": 0.75})
    made.close(failed=False)
    assert out.getvalue().count("step 2/2") == 1
    made, out = tracker(terminal=False, every_seconds=5)
    made.start("runs/x", CONFIG, None)
    made.log(3, {"reward/mean": 0.5, "time/step": 1.0})
    assert "step 3/10" not in out.getvalue()
    made.close(failed=False)
    assert out.getvalue().count("step 3/10") == 1


def test_a_long_task_gives_lines_at_intervals(clock):
    made, out = tracker(terminal=False, every_seconds=5)
    for done, now in ((0, 101.0), (64, 106.0), (128, 108.0), (192, 112.0)):
        clock.now = now
        made.progress("evaluating", done, 256)
    assert out.getvalue().splitlines() == ["evaluating 64 of 256", "evaluating 192 of 256"]


def test_close_gives_the_cursor_back_and_may_be_called_without_a_bar():
    made, out = tracker(terminal=True)
    made.start("runs/x", CONFIG, None)
    made.close(failed=True)
    made.log(1, {"time/step": 1.0})
    assert "\x1b[?25l" in out.getvalue()
    assert "\x1b[?25h" not in out.getvalue()
    made.close(failed=True)
    assert out.getvalue().count("\x1b[?25h") == 1


def test_the_console_is_a_registered_part():
    assert isinstance(build("tracker", "console", every_seconds=1), ConsoleTracker)


@pytest.mark.slow
def test_importing_the_trackers_imports_none_of_their_libraries():
    code = (
        "import sys, rlkit.trackers.console, rlkit.trackers.wandb, rlkit.trackers.tensorboard;"
        "import rlkit.trackers.mlflow, rlkit.trackers.trackio;"
        "known = ('wandb', 'tensorboard', 'rich', 'mlflow', 'trackio');"
        "print([m for m in known if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
