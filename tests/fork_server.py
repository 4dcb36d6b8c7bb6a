"""Runs command lines in forked copies of a process that has the imports done: one JSON request per
line.

A request is {"module", "args", "cwd", "env", "out", "err"} with one environment per process, each
of which adds its output to the files; the answer is an exit status. If one of several processes
fails, the others are ended, as torchrun does. This process itself computes nothing, so that its
children may use threads.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

IMPORTED = (
    *("rlkit.run", "rlkit.__main__", "rlkit.composition.execute", "rlkit.composition.stages"),
    *("rlkit.composition.hydra_groups", "rlkit.distributed.launch", "rlkit.models.embedded"),
    *("hydra.main", "hydra._internal.hydra", "hydra._internal.core_plugins.basic_launcher"),
    *("hydra._internal.core_plugins.basic_sweeper", "hydra.core.override_parser.overrides_parser"),
    *("rich.console", "rich.progress", "rich.live"),
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.tokenization_auto"),
)


def child(request: dict[str, Any], env: dict[str, str]) -> int:
    for name, number in (("out", 1), ("err", 2)):
        target = os.open(str(request[name]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, number)
    os.chdir(str(request["cwd"]))
    os.environ.update(env)
    sys.argv = [str(request["module"]), *request["args"]]
    try:
        return int(import_module(str(request["module"])).main() or 0)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1


def finished(children: set[int]) -> int:
    """The exit status of the first process that failed, or 0."""
    first = 0
    while children:
        pid, waited = os.wait()
        children.discard(pid)
        status = os.waitstatus_to_exitcode(waited)
        if status and not first:
            first = status
            for other in children:
                os.kill(other, signal.SIGTERM)
    return first


def serve() -> None:
    for module in IMPORTED:
        import_module(module)
    # what every run computes alike, without torch
    import_module("rlkit.composition.catalog").of_registry()
    import_module("rlkit.composition.hydra_groups").store_groups()
    for rows in import_module("rlkit.tasks.arithmetic").split(5):
        rows.row_hashes  # noqa: B018
    import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("llama")
    print("ready", flush=True)
    for line in sys.stdin:
        request, children = json.loads(line), set()
        for env in request["env"]:
            pid = os.fork()
            if pid == 0:
                status = child(request, env)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
            children.add(pid)
        print(finished(children), flush=True)


if __name__ == "__main__":
    serve()
