"""Commands in a real terminal: Ctrl-C at any moment, the bar, the scrollback, a multirun."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import SMALL, run
from tests.terminal import CTRL_C, Terminal

WAITING = """
import sys, time
class Wait:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            print("WAITING", flush=True)
            time.sleep(200)
sys.meta_path.insert(0, Wait())
sys.argv = ["rlkit"]
from rlkit.run import main
sys.exit(main({arguments!r}))
"""
"""A run that waits when it imports a module."""
TOLD = {"rlkit: stopped", "rlkit: stopped before anything began"}


def after_the_key(terminal: Terminal) -> list[str]:
    return [line for line in terminal.text.split("^C")[1].split("\n") if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["rlkit.errors", "hydra", "torch", "transformers.models.llama.modeling_llama"]
)
def test_ctrl_c_during_imports_is_one_line(module: str, tmp_path: Path) -> None:
    code = WAITING.format(module=module, arguments=[*SMALL, "output_dir=out"])
    terminal = Terminal(["-c", code], tmp_path)
    terminal.wait_for("WAITING")
    terminal.press(CTRL_C)
    assert terminal.status() == 130, terminal.text
    assert [*TOLD & {*after_the_key(terminal)}] == after_the_key(terminal), terminal.text
    assert list(tmp_path.iterdir()) == []


SLOW = """
import time
import rlkit.composition.compose as compose, rlkit.composition.session as session
def slow(*given, **named):
    print("WAITING", flush=True)
    try:
        time.sleep(200)
    except KeyboardInterrupt as interrupt:
        {then}
real, {place} = {place}, slow
import sys
sys.argv = ["rlkit"]
from rlkit.run import main
sys.exit(main({arguments!r}))
"""
"""A run that waits inside a function; what that makes of Ctrl-C is up to it."""


@pytest.mark.parametrize(
    ("place", "then"),
    [
        ("compose.check", "raise"),
        pytest.param(
            "compose.check",
            "raise ImportError('cannot load') from interrupt",
            marks=pytest.mark.slow,
        ),
        pytest.param("session.load_prompts", "raise", marks=pytest.mark.slow),
        pytest.param("session.load_prompts", "return real(*given)", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_while_composing_or_loading_is_one_line(
    place: str, then: str, tmp_path: Path
) -> None:
    """Also if the code that it meets makes another error of it, or swallows it."""
    code = SLOW.format(place=place, then=then, arguments=[*SMALL, "output_dir=out"])
    terminal = Terminal(["-c", code], tmp_path)
    terminal.wait_for("WAITING")
    terminal.press(CTRL_C)
    assert terminal.status() == 130, terminal.text
    assert after_the_key(terminal) == ["rlkit: stopped"], terminal.text
    assert list(tmp_path.iterdir()) == []


def trained(folder: Path, *arguments: str) -> list[str]:
    """The lines of a run on a terminal, and what each redraw of the bar begins with."""
    terminal = Terminal(["-m", "rlkit.run", *SMALL, "output_dir=out", *arguments], folder)
    assert terminal.status() == 0, terminal.text
    return terminal.lines


def evaluations(lines: list[str]) -> list[str]:
    """The steps of the lines that stay above the bar and show an evaluation."""
    return [line.split()[1] for line in lines if line.startswith("step ") and "pass@1" in line]


def redraws(lines: list[str]) -> list[str]:
    """Where the bar stood, in order and without repetition."""
    steps = [line.split()[0] for line in lines if line[0].isdigit() and "/" in line.split()[0]]
    return list(dict.fromkeys(steps))


@pytest.mark.slow
def test_evaluations_stay_and_the_bar_of_a_resumed_run_begins_where_it_was(tmp_path: Path) -> None:
    lines = trained(tmp_path, "eval.every=1", "train.steps=2")
    assert evaluations(lines) == ["0/2", "1/2", "2/2"]
    assert redraws(lines) == ["0/2", "1/2", "2/2"]
    more = "eval.every=1", "train.steps=4", "resume=auto", "resume_force=[train.steps]"
    lines = trained(tmp_path, *more)
    assert "Resumed from step 2 of 4: out/checkpoint-2" in lines
    assert evaluations(lines) == ["3/4", "4/4"]
    assert redraws(lines) == ["2/4", "3/4", "4/4"]


@pytest.mark.slow
def test_a_multirun_names_its_jobs_and_compares_them_in_the_end(tmp_path: Path) -> None:
    chosen = "-m", "train.steps=1", "loss.clip_low=0.1,0.2", "seed=0,1", "output_dir=out"
    result = run(*SMALL, *chosen, cwd=tmp_path)
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert [line for line in lines if line.startswith("job ")] == [
        "job 1 of 4: loss.clip_low=0.1 seed=0",
        "job 2 of 4: loss.clip_low=0.1 seed=1",
        "job 3 of 4: loss.clip_low=0.2 seed=0",
        "job 4 of 4: loss.clip_low=0.2 seed=1",
    ]
    last = max(i for i, line in enumerate(lines) if line.startswith("Done:"))
    caption, head, *rows = filter(None, lines[last + 1 :])
    assert "4 runs in 2 groups" in caption and head.startswith("group"), lines[last:]
    assert any("0.1" in row for row in rows) and any("0.2" in row for row in rows)
