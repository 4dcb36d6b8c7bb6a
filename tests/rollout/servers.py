"""Real vLLM servers in processes of their own, which a test can kill, stop and wake."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 240
CACHE = ("--kv-cache-memory-bytes", "100000000")
KEY = "sesame"
"""The API key the servers ask for."""


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
    return port


class ServerProcess:
    """A server and its engine, in one process group."""

    def __init__(self, model: Path, log: Path, *options: str) -> None:
        self.port, self.log = free_port(), log
        self.address = f"http://127.0.0.1:{self.port}"
        settings = f"--port {self.port} --dtype float32 --enforce-eager"
        environment = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_API_KEY": KEY}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "rlkit.serve",
                    str(model),
                    *settings.split(),
                    *CACHE,
                    *options,
                ],
                env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                opener.open(self.address + "/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        raise AssertionError(self.log.read_text()[-3000:])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and its engine."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End both at once, if they still run."""
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()
