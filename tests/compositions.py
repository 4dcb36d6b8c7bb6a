"""Compositions without a command: from overrides through Hydra to the parts of a run."""

from __future__ import annotations

from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from rlkit.composition.compose import compose
from rlkit.composition.composition import Composition
from rlkit.composition.config_files import configs_folder
from rlkit.composition.hydra_groups import store_groups
from rlkit.distributed.processes import SINGLE, Processes


def raw_of(*overrides: str) -> Any:
    """The configuration that `python -m rlkit.run <overrides>` composes."""
    store_groups()
    with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
        composed = hydra_compose("config", overrides=["output_dir=out", *overrides])
    return OmegaConf.to_container(composed, resolve=True)


def composed(*overrides: str, processes: Processes = SINGLE) -> Composition:
    """Its parts."""
    return compose(raw_of(*overrides), processes)
