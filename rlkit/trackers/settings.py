"""A run's configuration as one level of keys, as they are written on the command line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rlkit.plugins import LIST_KINDS, SINGLE_KINDS
from rlkit.runs.resume import FREE, covers, flat

ALGORITHM, STAGES = "algorithm", "stages"
SAME_IN_A_GROUP = (*(key for key in FREE if key != "eval"), "seed")
"""What may differ between the runs of a group."""


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Each setting under its own key: {"loss": "ppo", "loss.clip_low": 0.2, "seed": 1, ...}.

    A part's name stands under its kind, those of a list of parts together, as whoever overrides
    them writes it: a sweep that sets `loss` and `loss.clip_low` changes these keys and no other. Of
    stage N, "stage.N.<key>" are its parts' names and what it has otherwise than the whole run.
    """
    found = _one(config)
    for number, stage in enumerate(config.get(STAGES) or (), start=1):
        names = (ALGORITHM, *SINGLE_KINDS, *LIST_KINDS)
        found |= {
            f"stage.{number}.{key}": value
            for key, value in _one(stage).items()
            if key in names or found.get(key) != value
        }
    return found


def _one(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a composition, without its stages."""
    rest = {key: value for key, value in config.items() if key != STAGES}
    names: dict[str, Any] = {}
    for kind in SINGLE_KINDS:
        node = rest.get(kind)
        if isinstance(node, Mapping) and "name" in node:
            names[kind] = node["name"]
            rest[kind] = {key: value for key, value in node.items() if key != "name"}
    for kind in LIST_KINDS:
        nodes = rest.get(kind)
        if isinstance(nodes, Mapping):
            names[kind] = list(nodes)
            rest[kind] = {label: _nameless(label, node) for label, node in nodes.items()}
    leaves = flat(rest).items()
    return names | {key: value for key, value in leaves if not _is_empty(value)}


def _nameless(label: str, node: Any) -> Any:
    """A part of a list without its name, unless that says more than the label."""
    if isinstance(node, Mapping) and node.get("name") == label:
        return {key: value for key, value in node.items() if key != "name"}
    return node


def _is_empty(value: Any) -> bool:
    return isinstance(value, Mapping) and not value


def group_of(config: Mapping[str, Any]) -> str:
    """The name that runs share which differ at most by their seed, and by where and how they run.

    The algorithm, and a digest of all that decides the results.
    """
    settings = {
        key: value
        for key, value in flat_settings(config).items()
        if not any(covers(name, _of_stage(key)) for name in SAME_IN_A_GROUP)
    }
    text = json.dumps(settings, sort_keys=True, default=str)
    label = config.get(ALGORITHM) or settings.get("loss", "run")
    return f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _of_stage(key: str) -> str:
    """A stage's key without its stage."""
    return key.split(".", 2)[2] if key.startswith("stage.") else key
