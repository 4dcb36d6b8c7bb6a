"""Running a process and watching its memory from outside, in the same way for all."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from records import ROOT

INTERVAL_S = 0.05
FOLDERS = (str(ROOT), str(ROOT / "benchmarks"))


@dataclass(frozen=True)
class Watched:
    """What a finished process wrote and the most memory it had."""

    out: str
    loaded_mb: float
    """Resident memory when it said that its model was loaded; 0 if it never did."""
    peak_mb: float


def status(pid: int, field: str) -> float:
    """VmRSS or VmHWM of a process in MiB; 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 2**10 if found else 0.0


def watched(command: Sequence[str], *, threads: int, loaded: str, **env: str) -> Watched:
    """Run a command with so many threads; a line that begins with `loaded` says when it has loaded.

    Stops the benchmark with what a command that fails says.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(threads) | env,
    )
    peak = [0.0]

    def poll() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], status(process.pid, "VmHWM"))
            time.sleep(INTERVAL_S)

    poller = threading.Thread(target=poll, daemon=True)
    poller.start()
    lines, loaded_mb = [], 0.0
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            lines.append(line)
            if not loaded_mb and line.startswith(loaded):
                loaded_mb = status(process.pid, "VmRSS")
    poller.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{''.join(lines[-30:])}")
    return Watched("".join(lines), loaded_mb, peak[0])


def environment(threads: int) -> dict[str, str]:
    """The variables of a measured process."""
    path = os.pathsep.join(filter(None, (*FOLDERS, os.environ.get("PYTHONPATH"))))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
