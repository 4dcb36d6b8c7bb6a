"""The composition that overrides choose, and what trackers are told of a run's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlkit.composition.config_files import (
    config_folders,
    default_choices,
    files_of,
    read_config_file,
)
from rlkit.config.overrides import key_of, option_value

ALGORITHM, EXPERIMENT = "algorithm", "experiment"


def chosen_algorithm(overrides: Sequence[str]) -> str:
    """The name of the composition: that of an override, else an experiment's, else the default."""
    chosen: dict[str, str] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and not key.startswith("-"):
            chosen[key_of(key)] = value.strip().strip("'\"")
    if ALGORITHM in chosen:
        return chosen[ALGORITHM]
    folders = config_folders(option_value(overrides, "--config-dir", "-cd"))
    file = files_of(EXPERIMENT, folders).get(chosen.get(EXPERIMENT, ""))
    choices = dict(read_config_file(file).chooses) if file is not None else {}
    return str(choices.get(ALGORITHM) or default_choices()[ALGORITHM])


def told_to_trackers(
    raw: Mapping[str, Any], overrides: Sequence[str], stages: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A run's configuration with the name of its composition, and the same of each stage.

    `raw` is as composed, and `stages` the configurations of its stages.
    """
    entries: Sequence[Mapping[str, Any]] = raw.get("stages") or ()
    told = []
    for entry, stage in zip(entries, stages, strict=False):
        name = chosen_algorithm([*overrides, *(entry.get("overrides") or ())])
        told.append({**stage, ALGORITHM: name, "stages": []})
    return {**raw, ALGORITHM: chosen_algorithm(overrides), "stages": told}
