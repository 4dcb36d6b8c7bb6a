"""`python -m rlkit.run algorithm=remix buffer=fifo anchor=kl_convex`: compose, validate, train."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rlkit.composition.error_messages import MAPPED, one_line
from rlkit.composition.execute import Stopped, execute
from rlkit.composition.hydra_groups import configs_folder, import_before_compose
from rlkit.composition.stages import stage_configs
from rlkit.distributed.launch import close_processes, launched, open_processes
from rlkit.errors import UserError
from rlkit.plugins import SINGLE_KINDS

USER_ERROR = 2
PATIENCE = 5.0
"""Seconds that another rank waits before it prints an error that the main process may print too."""
INTERRUPTED = 130
"""The exit status of a command ended by Ctrl-C."""


def job(config: DictConfig) -> None:
    """One Hydra job. A user's mistake exits here, before Hydra can add lines of its own."""
    try:
        status = guarded(lambda: _job(config))
    except Stopped:
        close_processes()
        sys.exit(0)  # ends a sweep too
    if status:
        sys.exit(status)


def _job(config: DictConfig) -> None:
    state = HydraConfig.get()
    raw: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    for kind in SINGLE_KINDS:
        chosen = [o.partition("=")[2] for o in state.overrides.task if o.startswith(f"{kind}=")]
        if not isinstance(state.runtime.choices.get(kind), str):
            raise UserError(f"{kind}={chosen[-1]} is not valid: choose exactly one {kind}")
    processes = open_processes((raw.get("model") or {}).get("device", "auto"))
    raw["output_dir"] = processes.on_main(lambda: raw["output_dir"])  # the clock may be in it
    if state.mode == RunMode.MULTIRUN:
        raw["output_dir"] = str(Path(raw["output_dir"]) / str(state.job.num))
    overrides = list(state.overrides.task)
    execute(raw, overrides, list(stage_configs(raw, overrides)), processes)


def guarded(call: Callable[[], None]) -> int:
    """Run `call`; a user's mistake becomes one line and status 2."""
    if os.environ.get("RLKIT_DEBUG"):
        call()
        return 0
    try:
        call()
        sys.stdout.flush()
    except MAPPED as error:
        return leave(one_line(error))
    except KeyboardInterrupt:
        line = "rlkit: stopped at once; continue from the last checkpoint: resume=auto"
        if launched()[0] == 0:
            print(line, file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def leave(line: str) -> int:
    """Tell the user what is wrong, once: the main process does, if it has the error too."""
    rank, count = launched()
    if rank > 0:
        time.sleep(PATIENCE)  # the launcher ends this process meanwhile, if another one has failed
        line = f"(process {rank}) {line}"
    print(f"rlkit: {line}", file=sys.stderr, flush=True)
    if count > 1:
        os._exit(USER_ERROR)  # the others may wait for this one, and would not let it go
    return USER_ERROR


def main() -> int:
    """The command line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them

    def call() -> None:
        sys.argv[1:] = import_before_compose(sys.argv[1:])
        hydra.main(version_base=None, config_path=str(configs_folder()), config_name="config")(
            job
        )()

    status = guarded(call)
    close_processes()
    return status


if __name__ == "__main__":
    sys.exit(main())
