"""The run's side of the processes in which episodes live: start, ask within a time, kill."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any

from rlkit.errors import UserError
from rlkit.rewards.process import START_SECONDS, worker_environment

GRACE_SECONDS = 2.0
"""How long after its limit a call that Python could not end is killed."""
LARGEST = 1 << 26
"""Bytes of a reply: the answers to many calls at their longest, and no more than the run can hold
for each episode."""


class Lost(Exception):
    """The process of an episode died, or wrote what is no reply."""


class Late(Exception):
    """The process of an episode did not answer in time, and was killed."""


class Channel:
    """One episode's process. One thread at a time may ask it."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._received = bytearray()
        self.pid: int | None = None

    def begun(self) -> None:
        """Wait for the process to say who it is."""
        self.pid = int(self._answer(START_SECONDS, "pid")["pid"])

    def ask(self, do: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """The reply to a request, {"value"} or {"error"}.

        Raises Late if there is none after `seconds`, and Lost if the process is gone or writes
        anything else, as code that a model wrote may; it is closed in all cases.
        """
        request = json.dumps({"do": do, **arguments}).encode() + b"\n"
        try:
            self._socket.settimeout(seconds + GRACE_SECONDS)
            self._socket.sendall(request)
            return self._answer(seconds + GRACE_SECONDS, "value", "error")
        except TimeoutError:
            self.close()
            raise Late from None
        except (OSError, ValueError, RecursionError):
            self.close()
            raise Lost from None

    def close(self) -> None:
        """Kill the process and all that it started."""
        self._socket.close()
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self.pid = None

    def _answer(self, seconds: float, *keys: str) -> dict[str, Any]:
        """An object of one of the keys. Raises ValueError or RecursionError for another line."""
        deadline = time.monotonic() + seconds
        while not self._received.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError
            self._received += data
            if len(self._received) > LARGEST:
                raise ValueError(f"a reply of more than {LARGEST} bytes")
        line, self._received = self._received, bytearray()
        reply: Any = json.loads(line)
        if not isinstance(reply, dict) or not any(key in reply for key in keys):
            raise ValueError("no reply")
        return reply


class Host:
    """The process that forks for each episode (`rlkit.environments.host`), started when needed.

    `trusted`: whether it gets the run's environment variables, or only those every worker gets.
    """

    def __init__(self, spec: Mapping[str, Any], *, trusted: bool) -> None:
        self._spec = dict(spec)
        self._trusted = trusted
        self._lock = threading.Lock()
        self._running: list[tuple[subprocess.Popen[bytes], socket.socket]] = []
        weakref.finalize(self, end_all, self._running)

    def episode(self) -> Channel:
        """A new process, forked from the host. Raises UserError if the host cannot be started."""
        with self._lock:
            channel = self._forked() or self._forked()
        if channel is None:
            raise UserError("the process that runs tools and environments was killed twice")
        return channel

    def close(self) -> None:
        """End the host; the episodes of closed channels have ended already."""
        with self._lock:
            end_all(self._running)

    def _forked(self) -> Channel | None:
        """A new process; None if the host is gone, and the next call starts another."""
        if not self._running:
            self._running.append(self._started())
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        try:
            with theirs:
                socket.send_fds(self._running[0][1], [b"e"], [theirs.fileno()])
            channel.begun()
        except (OSError, ValueError):
            channel.close()
            end_all(self._running)
            return None
        return channel

    def _started(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        allow_open_files()
        ours, theirs = socket.socketpair()
        environment = worker_environment()
        if self._trusted:
            environment = {**os.environ, **environment}
        command = (sys.executable, "-P", "-B", "-m", "rlkit.environments.host")
        with theirs, tempfile.TemporaryFile() as stderr:
            process = subprocess.Popen(
                [*command, str(theirs.fileno()), json.dumps(self._spec)],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            theirs.close()
            ours.settimeout(START_SECONDS)
            try:
                ready = ours.recv(1)
            except TimeoutError:
                ready = b""
            if ready:
                ours.settimeout(None)
                return process, ours
            process.kill()
            process.wait()
            ours.close()
            stderr.seek(0)
            lines = stderr.read().decode(errors="replace").strip().splitlines()
        raise UserError(
            f"the process that runs {self._spec['factory'] or ', '.join(self._spec['tools'])} did "
            f"not start; it said: {lines[-1] if lines else 'nothing'}"
        )


def allow_open_files() -> None:
    """Raise the soft limit of open files: an episode has one of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def end_all(running: list[tuple[subprocess.Popen[bytes], socket.socket]]) -> None:
    """End hosts, also at interpreter exit; their forks end with them."""
    while running:
        process, control = running.pop()
        control.close()
        process.kill()
        process.wait()
