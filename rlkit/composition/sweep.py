"""A multirun is checked as a whole before its first job, so that a late mistake costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rlkit.composition.config_files import configs_folder, search_path
from rlkit.config.overrides import key_of, option_value
from rlkit.errors import UserError

SWEEPER = "hydra/sweeper"
SHOWING = ("--cfg", "-c", "--info", "--help", "-h", "--hydra-help")
"""Options of commands that run nothing."""


def is_multirun(arguments: Sequence[str]) -> bool:
    """Whether Hydra will run several jobs of which all are known beforehand."""
    options = [a.partition("=")[0] for a in arguments if a.startswith("-")]
    settings = {key_of(a): a.partition("=")[2] for a in arguments if _is_setting(a)}
    several = bool({"-m", "--multirun"} & {*options}) or settings.get("hydra.mode") == "MULTIRUN"
    return several and not shows_only(arguments) and settings.get(SWEEPER, "basic") == "basic"


def shows_only(arguments: Sequence[str]) -> bool:
    """Whether nothing is run, only shown."""
    return any(argument.partition("=")[0] in SHOWING for argument in arguments)


def jobs(arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of each job, as Hydra's own sweeper makes them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([a for a in arguments if _is_setting(a)])
    (found,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return found


def check_jobs(arguments: Sequence[str]) -> None:
    """Compose and check every job. Raises UserError that names the first that is wrong."""
    from hydra import initialize_config_dir

    from rlkit.composition.error_messages import MAPPED, one_line

    found = jobs(arguments)
    search = search_path(option_value(arguments, "--config-dir", "-cd"))
    with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
        for number, overrides in enumerate(found):
            try:
                _check([*search, *overrides])
            except MAPPED as error:
                raise UserError(_named(number, overrides, found, one_line(error))) from error
            except UserError as error:
                raise UserError(_named(number, overrides, found, str(error))) from error


def _check(overrides: Sequence[str]) -> None:
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    composed = hydra_compose("config", overrides=list(overrides))
    raw: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]

    # Imported here: what Hydra refuses needs no torch.
    from rlkit.composition.compose import compose
    from rlkit.composition.session import close
    from rlkit.composition.stages import stage_configs

    for config in (raw, *stage_configs(raw, list(overrides))):
        close(compose(config))


def _named(number: int, job: Sequence[str], found: Sequence[Sequence[str]], message: str) -> str:
    """The message, after the job and what is its own."""
    own = ", ".join(own_overrides(job, found))
    of = f"job {number + 1} of {len(found)}" + (f" ({own})" if own else "")
    keys = [key_of(override) for override in job if "=[" in override]
    listed = len(found) == 1 and any(message.startswith(f"{key}=") for key in keys)
    hint = "; a sweep over values is key=a,b without brackets" if listed else ""
    return f"{of} cannot run, so none was started: {message}{hint}"


def own_overrides(job: Sequence[str], found: Sequence[Sequence[str]]) -> Iterator[str]:
    """The overrides of a job that not all jobs have."""
    for place, override in enumerate(job):
        if any(other[place] != override for other in found):
            yield override


def _is_setting(argument: str) -> bool:
    return "=" in argument and not argument.startswith("-")
