"""A command in a terminal of its own: keys are pressed, and what it draws is read."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from tests.cli import ROOT

CTRL_C = b"\x03"
PATIENCE = 300
"""Seconds after which a command that says nothing new is given up."""
_CONTROLS = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


class Terminal:
    """`python <arguments>` in a folder, on a terminal of 100 columns."""

    def __init__(self, arguments: Sequence[str], cwd: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        with warnings.catch_warnings():  # Python 3.12 warns of a fork beside other threads
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(sys.executable, [sys.executable, *arguments], environment)
        self._drawn = b""

    @property
    def text(self) -> str:
        """What was drawn, one line for each redraw too, without control codes."""
        plain = _CONTROLS.sub("", self._drawn.decode(errors="replace"))
        return plain.replace("\r", "\n")

    @property
    def lines(self) -> list[str]:
        """The lines that are not empty."""
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    def wait_for(self, text: str) -> None:
        """Read until a text has been drawn."""
        while text not in self.text:
            assert self._read(), f"it ended without {text!r}: {self.text}"

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self.terminal, key)

    def status(self) -> int:
        """Read to the end; the exit status as a shell has it."""
        while self._read():
            pass
        os.close(self.terminal)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return 128 - code if code < 0 else code

    def _read(self) -> bool:
        """Read some more; False at the end."""
        started = time.monotonic()
        while not select.select([self.terminal], [], [], 1.0)[0]:
            if time.monotonic() - started > PATIENCE:
                os.kill(self.pid, 9)
        try:
            found = os.read(self.terminal, 65536)
        except OSError:  # Linux says so when the last process has left the terminal
            return False
        self._drawn += found
        return bool(found)
