"""Ctrl-C before a command has begun: one line, and nothing changes for who imports rlkit."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest

from rlkit import interrupts
from rlkit.composition.guard import guarded
from rlkit.interrupts import INTERRUPTED, is_command
from rlkit.runs.stopping import StopRequest, stop_on_signals
from tests.cli import ROOT

STRUCK = """
import os, signal, sys
class Strike:
    def find_spec(self, name, *rest):
        if name == "{module}":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Strike())
sys.argv = ["rlkit"]
from {command} import main
sys.exit(main({arguments}))
"""
"""A command that Ctrl-C meets when it imports a module."""


def struck(command: str, module: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    code = STRUCK.format(command=command, module=module, arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("rlkit.run", "importlib.metadata"),
        ("rlkit.run", "rlkit.registry"),
        ("rlkit.__main__", "rlkit.composition.show"),
        ("rlkit.run", "hydra"),
    ],
)
def test_ctrl_c_while_importing_is_one_line(command: str, module: str) -> None:
    done = struck(command, module, ["train.steps=1"])
    assert done.returncode in (INTERRUPTED, -signal.SIGINT), done.stderr
    assert done.stderr.startswith("rlkit: stopped") and done.stderr.count("\n") == 1


def test_only_a_command_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for argv, original, expected in (
        (["/usr/bin/rlkit"], ["python", "/usr/bin/rlkit"], True),
        (["-m"], ["python", "-u", "-m", "rlkit.run", "x=1"], True),
        (["-m"], ["python", "-m", "pytest", "rlkit"], False),
        (["-c"], ["python", "-c", "import rlkit"], False),
        (["mine.py"], ["python", "mine.py"], False),
        ([], ["python"], False),
    ):
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setattr(sys, "orig_argv", original)
        assert is_command() is expected, argv


def test_a_command_that_has_begun_can_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rlkit"])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupts.quiet_while_importing()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        guarded(lambda: None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupts.quiet_while_importing()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "nohup stays in force"
    finally:
        signal.signal(signal.SIGINT, before)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def translated() -> None:
    try:
        press()
    except KeyboardInterrupt as interrupt:
        raise ImportError("cannot load") from interrupt


def swallowed() -> None:
    with suppress(KeyboardInterrupt):
        press()


def swallowed_before_training() -> None:
    swallowed()
    with stop_on_signals(StopRequest(), print):
        pytest.fail("it was told to stop")


@pytest.mark.parametrize("call", [press, translated, swallowed, swallowed_before_training])
def test_ctrl_c_ends_a_command_whatever_becomes_of_it(
    call: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    alarm = signal.getsignal(signal.SIGALRM)
    assert guarded(call) == INTERRUPTED
    assert capfd.readouterr().err == "rlkit: stopped\n"
    assert guarded(lambda: None) == 0 and not interrupts.struck()
    assert signal.alarm(0) == 0 and signal.getsignal(signal.SIGALRM) is alarm


def test_the_other_ranks_are_silent(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert guarded(press) == INTERRUPTED and capfd.readouterr().err == ""


def test_what_ctrl_c_is_meant_to_end_was_not_stopped(capfd: pytest.CaptureFixture[str]) -> None:
    def serve() -> None:
        with suppress(KeyboardInterrupt), interrupts.ended_by_ctrl_c():
            press()

    assert guarded(serve) == 0 and capfd.readouterr().err == ""


def test_what_is_called_next_in_the_process_was_not_told_to_stop() -> None:
    assert guarded(press) == INTERRUPTED
    assert not interrupts.struck()
    with stop_on_signals(StopRequest(), print):
        pass


IGNORED = """
import os, signal, sys
class Busy:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        for _ in range(10):
            pass
def call():
    Busy()
    print('went on')
sys.argv = ["rlkit"]
from rlkit.composition.guard import guarded
sys.exit(guarded(call))
"""


def test_ctrl_c_in_a_callback_that_cannot_raise_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", IGNORED], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (INTERRUPTED, ""), done
    assert done.stderr == "rlkit: stopped\n"
