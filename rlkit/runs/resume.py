"""Whether a checkpoint may be continued: only with the same maths and the same problems."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rlkit.errors import UserError, suggest

CONFIG = "run_config.json"
"""The configuration a checkpoint was made with, beside its weights."""
SOURCES = "run_sources.json"
"""Hashes of the user's modules it was made with."""
FREE = (
    *(
        "output_dir",
        "resume",
        "resume_force",
        "dry_run",
        "plugins",
        "tracker",
        "eval",
        "checkpoint",
        "completions",
    ),
    *("model.device", "model.gradient_checkpointing", "model.deterministic", "anchor.device"),
    *("train.micro_batch_tokens", "train.packing", "train.max_skipped_steps", "rollout.save"),
)
"""What may change: where the run is, how it is monitored, and how its computation is split."""
HARMLESS = (
    *("workers", "timeout", "time_limit", "tries", "backoff"),
    *("address", "key_variable", "cache_dir"),
)
"""Fields of `SERVICES` that change their speed, or where a service is, not their results."""
SERVICES = ("reward", "task", "rollout")
"""The sections of which HARMLESS fields may change."""
OBJECT = "object"
"""How the name of an in-memory object, which no configuration can hold, begins."""
DATA = "task.data"
"""What `resume_force` calls the task's training problems: their rows and their order."""
LOOKS_AHEAD = (
    " (the learning rate falls towards the last step, which moves; with a constant one a run can "
    "be extended)"
)
SHOWN = 4
"""How many changes the message names."""


def save_config(
    checkpoint: Path, raw: Mapping[str, Any], sources: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write the run's configuration, and the hashes of its user's code, into a checkpoint."""
    (checkpoint / CONFIG).write_text(json.dumps(raw))
    (checkpoint / SOURCES).write_text(json.dumps(dict(sources)))


def check_sources(checkpoint: Path, sources: Mapping[str, str], forced: Sequence[str]) -> None:
    """Raise UserError if the user's code changed since the checkpoint; `forced` may have.

    A module's key is "source.<module>". A checkpoint of a run without such code knows none.
    """
    path = checkpoint / SOURCES
    old = json.loads(path.read_text()) if path.is_file() else {}
    changed = [
        f"source.{name}" for name in sorted({*old} & {*sources}) if old[name] != sources[name]
    ]
    left = [key for key in changed if not any(covers(name, key) for name in forced)]
    if left:
        raise UserError(
            f"{checkpoint} was made with other code: {', '.join(left)} changed since. Use the old "
            f"code, or allow the new one: resume_force=[{','.join(left)}]"
        )


def check_config(
    checkpoint: Path,
    raw: Mapping[str, Any],
    defaults: Mapping[str, Any],
    restored: Collection[str] = (),
) -> None:
    """Raise UserError, naming the keys, if `raw` would change the maths of a run.

    Keys in `resume_force`, and those below them, may change. A key that the checkpoint lacks, since
    it is newer, counts as its default, by dotted name in `defaults`. Parts of the sections
    `restored` take their state from the checkpoint, and must be those it was made with.
    """
    path = checkpoint / CONFIG
    if not path.is_file():
        raise UserError(f"{checkpoint} was not written by a run: {CONFIG} is missing in it")
    new = flat(json.loads(json.dumps(raw)))
    known = {key: value for key, value in flat(defaults).items() if key in new}
    old = known | flat(json.loads(path.read_text()))
    free = [*FREE, *raw.get("resume_force", ())]
    check_forced(raw.get("resume_force", ()), {*old, *new})
    constant = new.get("train.lr_scheduler_type") == "constant"
    if constant and not raw.get("stages"):
        free.append("train.steps")  # nothing looks ahead to the last step
    changed = [
        key
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not any(covers(name, key) for name in free)
        if not is_harmless(key)
    ]
    lost = next((old[key] for key in changed if is_object(old.get(key))), None)
    if lost is not None:
        raise UserError(
            f"{checkpoint} is of a run that was given an {lost}; pass it again to rlkit.train"
        )
    parts = [f"{section}.name" for section in sorted(restored)]
    if others := [key for key in parts if old.get(key) != new.get(key)]:
        raise UserError(
            f"{checkpoint} holds the state of other parts ({changes(others, old, new)}), which "
            "resume_force cannot change. Use the old parts, or start a new run from its weights: "
            f"model.name={checkpoint} output_dir=<new folder>"
        )
    if changed:
        raise UserError(
            f"{checkpoint} was made with another configuration: {changes(changed, old, new)}. Use "
            f"the old values, or allow the new ones: resume_force=[{','.join(changed)}]"
            + LOOKS_AHEAD
            * ("train.steps" in changed and not constant)
        )


def check_forced(forced: Sequence[str], keys: Collection[str]) -> None:
    """Raise UserError for a name in `resume_force` that is neither a key nor a section of them."""
    for name in forced:
        known = name == DATA or covers("source", name)
        if not known and not any(covers(name, key) for key in keys):
            raise UserError(
                f"resume_force names {name}, which is no key of this run.{suggest(name, keys)}"
            )


def check_data(
    checkpoint: Path, old: Mapping[str, Any], new: Mapping[str, Any], allowed: Sequence[str]
) -> None:
    """Raise UserError if the training problems are not those that a checkpoint was made with.

    `old` and `new` are their fingerprints. Different ones are `allowed` with any key of the task.
    """
    if old == new or any(name.partition(".")[0] == "task" for name in allowed):
        return
    counts = old["problems"], new["problems"]
    difference = (
        "others, or in another order" if counts[0] == counts[1] else f"{counts[0]} -> {counts[1]}"
    )
    raise UserError(
        f"{checkpoint} was made with other data: the task's training problems have changed since "
        f"({difference}). Restore them, or allow it: resume_force=[{DATA}]"
    )


def is_object(value: Any) -> bool:
    """Whether a configuration's value names an object in memory: its class and hash."""
    return isinstance(value, str) and value.startswith(f"{OBJECT} ") and " sha256:" in value


def flat(tree: Any, place: str = "") -> dict[str, Any]:
    """Every leaf of nested dicts by its dotted key; a list is a leaf."""
    return dict(_leaves(tree, place))


def _leaves(tree: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{place}.{key}" if place else str(key))
    else:
        yield place, tree


def is_harmless(key: str) -> bool:
    """Whether what a key sets has no part in results."""
    return key.partition(".")[0] in SERVICES and key.rpartition(".")[2] in HARMLESS


def covers(name: str, key: str) -> bool:
    """Whether a key is the named one or lies below it."""
    return key == name or key.startswith(name + ".")


def changes(keys: Sequence[str], old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first changes in words."""
    shown = [f"{key} {shortly(old, key)} -> {shortly(new, key)}" for key in keys[:SHOWN]]
    rest = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(shown) + rest


def shortly(values: Mapping[str, Any], key: str) -> str:
    """A value, or "unset" if there is none."""
    return json.dumps(values[key]) if key in values else "unset"
