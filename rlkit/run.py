"""`python -m rlkit.run algorithm=remix buffer=fifo anchor=kl_convex`: compose, validate, train.

What imports torch is imported where it is used, so that `--help` and most mistakes are answered
without it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlkit.composition.config_files import config_folders, configs_folder, hidden
from rlkit.composition.guard import guarded
from rlkit.composition.help_page import print_help
from rlkit.config.overrides import option_value
from rlkit.distributed.rank import launched
from rlkit.errors import UserError
from rlkit.plugins import SINGLE_KINDS
from rlkit.runs.stopping import Stopped

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rlkit.composition.multirun import Multirun


def job(config: DictConfig, several: Multirun | None = None) -> None:
    """One Hydra job. A user's mistake exits here, before Hydra can add lines of its own."""
    try:
        status = guarded(lambda: _job(config, several))
    except Stopped as stopped:
        _close_processes()
        sys.exit(stopped.status)  # ends a sweep too
    if status:
        sys.exit(status)


def _job(config: DictConfig, several: Multirun | None) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    state = HydraConfig.get()
    raw: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    for kind in SINGLE_KINDS:
        chosen = [o.partition("=")[2] for o in state.overrides.task if o.startswith(f"{kind}=")]
        if not isinstance(state.runtime.choices.get(kind), str):
            raise UserError(f"{kind}={chosen[-1]} is not valid: choose exactly one {kind}")

    from rlkit.composition.execute import execute
    from rlkit.composition.stages import stage_configs
    from rlkit.distributed.launch import open_processes

    processes = open_processes((raw.get("model") or {}).get("device", "auto"))
    raw["output_dir"] = processes.on_main(lambda: raw["output_dir"])  # the clock may be in it
    if state.mode == RunMode.MULTIRUN:
        raw["output_dir"] = str(Path(raw["output_dir"]) / str(state.job.num))
    overrides = list(state.overrides.task)
    stages = list(stage_configs(raw, overrides))
    own = [s.path for s in state.runtime.config_sources if s.provider == "command-line"]
    if several is not None and processes.is_main:
        print("\n" * (state.job.num > 0) + several.line(state.job.num), flush=True)
    folder = execute(
        raw, [*(f"--config-dir={path}" for path in own), *overrides], stages, processes
    )
    if several is not None:
        several.folders.append(folder)


def _close_processes() -> None:
    if launched()[1] > 1:
        from rlkit.distributed.launch import close_processes

        close_processes()


def show_help(arguments: Sequence[str]) -> None:
    """Print the page of help, with what the plug-ins and the folder among the arguments add."""
    overrides = [each for each in arguments if "=" in each and not each.startswith("-")]
    if overrides:
        from rlkit.composition.hydra_groups import register_user_parts

        register_user_parts(overrides)
    print_help(config_folders(option_value(arguments, "--config-dir", "-cd")))


def run_jobs(given: Sequence[str]) -> None:
    """Let Hydra compose and run the job, or the jobs of a multirun once all are checked."""
    import hydra

    from rlkit.composition.arguments import flags_first, repeated
    from rlkit.composition.error_messages import MAPPED, one_line
    from rlkit.composition.hydra_groups import import_before_compose
    from rlkit.composition.multirun import Multirun
    from rlkit.composition.sweep import check_jobs, is_multirun, jobs, shows_only

    if launched()[0] == 0 and not shows_only(given):
        own = option_value(given, "--config-dir", "-cd")
        for line in (*repeated(given), *hidden(own, given)):
            print(line)
    sys.argv[1:] = import_before_compose(flags_first(given))
    start = hydra.main(version_base=None, config_path=str(configs_folder()), config_name="config")
    try:
        if not is_multirun(sys.argv[1:]):
            start(job)()
            return
        check_jobs(sys.argv[1:])
        several = Multirun(jobs(sys.argv[1:]))
        start(wraps(job)(lambda config: job(config, several)))()
        if launched()[0] == 0 and (table := several.conclusion()):
            print("", *table, sep="\n")
    except MAPPED as error:
        raise UserError(one_line(error, sys.argv[1:])) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    given = list(sys.argv[1:] if arguments is None else arguments)
    status = guarded(
        lambda: show_help(given) if "--help" in given or "-h" in given else run_jobs(given)
    )
    _close_processes()
    return status


if __name__ == "__main__":
    sys.exit(main())
