"""The real command lines, from tests: `run("algorithm=grpo", cwd=tmp_path)` is `python -m rlkit.run
algorithm=grpo`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.rollout.servers import free_port

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    "train.steps=2",
    "train.prompts_per_step=4",
    "train.minibatches=2",
    "rollout.max_completion_length=14",
    "eval.problems=8",
    "eval.every=null",
)


ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "WANDB_SILENT": "true",
}
"""That of the session, whatever the test that asks first has set."""


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "fork_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    return server


def command(module: str, *args: str, cwd: Path, env: dict[str, str] | None = None) -> Result:
    """`python -m <module> <args>` in a folder."""
    return _ask(module, args, cwd, [env or {}])


def ranks(
    module: str, *args: str, cwd: Path, count: int = 2, env: dict[str, str] | None = None
) -> Result:
    """`torchrun --nproc_per_node=<count> -m <module> <args>`, without its own start-up.

    Another process may take the port before the first rank does; then another port is tried.
    """
    sizes = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    one_each = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    for _ in range(3):
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        every = [{**address, **sizes, **rank, **(env or {})} for rank in one_each]
        found = _ask(module, args, cwd, every)
        if not re.search("EADDRINUSE|address already in use", found.err, re.IGNORECASE):
            break
    return found


def _ask(module: str, args: Sequence[str], cwd: Path, env: Sequence[dict[str, str]]) -> Result:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        request = {
            "module": module,
            "args": args,
            "cwd": str(cwd),
            "env": env,
            "out": str(out),
            "err": str(err),
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return Result(status, out.read_text(), err.read_text())


def run(*args: str, cwd: Path, env: dict[str, str] | None = None) -> Result:
    """`python -m rlkit.run <args>`."""
    return command("rlkit.run", *args, cwd=cwd, env=env)


def metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Metrics that must repeat bit for bit."""
    varying = ("time/", "throughput/", "memory/")
    return [{k: v for k, v in row.items() if not k.startswith(varying)} for row in rows]
