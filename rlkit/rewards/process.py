"""A worker process that speaks JSON lines over pipes and can be killed at any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

START_SECONDS = 120.0
PASSED_ON = (
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "PYTHONHOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
)
"""The environment variables a worker gets: no tokens, no credentials."""


class Worker:
    """A process and the item it is working on.

    It writes {"ready": true} when it has started, then answers each line with one of "score",
    "limit" and "error", and "retire": whether to replace it. It exits when its stdin closes.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.ready = False
        self.item: int | None = None
        self.deadline = time.monotonic() + START_SECONDS
        self._received = b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env=worker_environment(),
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.stdin, self.stdout = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def waits(self) -> bool:
        """Whether it can take an item."""
        return self.ready and self.item is None

    @property
    def overdue(self) -> bool:
        """Whether its start or its item has taken too long."""
        return not self.waits and self.deadline <= time.monotonic()

    def send(self, item: int, message: Mapping[str, Any], seconds: float) -> bool:
        """Hand it an item to judge within `seconds`; False if the process is gone."""
        self.item, self.deadline = item, time.monotonic() + seconds
        data = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self.stdin.fileno(), data) :]
        except BrokenPipeError:
            return False
        return True

    def receive(self) -> dict[str, Any] | None:
        """A reply, {} while it is incomplete, None if the process is gone."""
        data = os.read(self.stdout.fileno(), 1 << 16)
        if not data:
            return None
        self._received += data
        if not self._received.endswith(b"\n"):
            return {}
        line, self._received = self._received, b""
        reply: dict[str, Any] = json.loads(line)
        return reply

    def last_words(self) -> str:
        """The last line it wrote to stderr while it started."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"

    def end(self) -> None:
        """Kill the process and wait until it has exited."""
        self._process.kill()
        self._process.wait()
        for stream in (self.stdin, self.stdout, self._stderr):
            stream.close()


def worker_environment() -> dict[str, str]:
    """A minimal environment with this process's module search path.

    A fixed hash seed and sympy's own integers make a verdict the same on every machine.
    """
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return kept | {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "SYMPY_GROUND_TYPES": "python"}
