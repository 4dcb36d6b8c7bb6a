"""The settings of a run's checkpoint as the defaults of its evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlkit.composition.catalog_file import catalog
from rlkit.composition.composition import Raw
from rlkit.config.overrides import key_of, quoted
from rlkit.errors import UserError
from rlkit.plugin_parts import load_plugin, register_from_plugins
from rlkit.runs.checkpoint import load_tree
from rlkit.runs.resume import CONFIG, covers, flat, is_object

KEPT = {
    "seed": None,
    "task": None,
    "reward": None,
    "eval": None,
    "rollout": None,
    "model": ("dtype", "autocast", "attn_implementation", "tf32", "deterministic", "base_seed"),
}
"""The sections that an evaluation takes from a run; of some, only these keys."""
EPISODES = ("environment", "tools", "turns")
"""What an evaluation on a task takes too: a policy that learned to use them is nothing without."""
LEFT = (
    *("rollout.num_generations", "rollout.mode", "rollout.max_staleness", "rollout.deterministic"),
    *("rollout.sync_every", "rollout.oversample", "rollout.round_tokens", "eval.on"),
    *("rollout.draft", "rollout.behavior"),
)
"""What only training has a use for."""
WHOLE = ("algorithm", "experiment")
"""Groups that set keys of every section: with them, nothing is taken from the run."""


def saved_config(checkpoint: str, overrides: Sequence[str] = ()) -> Raw | None:
    """The configuration of the run that wrote a checkpoint; None for any other model.

    Also None if an override chooses a whole composition in its place.
    """
    path = Path(checkpoint) / CONFIG
    if not path.is_file() or {*map(key_of, overrides)} & {*WHOLE}:
        return None
    return with_weights(json.loads(path.read_text()), Path(checkpoint))


def with_weights(saved: dict[str, Any], checkpoint: Path) -> Raw:
    """A run's configuration with the weights and multipliers that its rewards had in the end.

    Schedules of a training step mean nothing to an evaluation.
    """
    counters = checkpoint / "state" / "counters"
    if not counters.with_suffix(".json").is_file():
        return saved
    rewards = {name: dict(node) for name, node in (saved.get("reward") or {}).items()}
    for place, value in load_tree(counters).get("values", {}).items():
        kind, _, rest = place.partition(".")
        name, _, key = rest.rpartition(".")
        if kind == "reward" and name in rewards:
            rewards[name][key] = value
    return saved | {"reward": rewards} if rewards else saved


def choices(saved: Raw, overrides: Sequence[str]) -> list[str]:
    """The overrides by which Hydra chooses the parts that the run had, where the user does not.

    They are registered, if plugins hold them. Another task has other rewards, unless they are
    chosen too. Raises UserError for a part that was an object in memory.
    """
    given = {*map(key_of, overrides)}
    plugins = list(saved.get("plugins") or ()) if "plugins" not in given else []
    chosen = [f"plugins=[{','.join(map(quoted, plugins))}]"] if plugins else []
    for plugin in plugins:
        load_plugin(plugin)
    for kind in ("task", "rollout"):
        if kind not in given:
            _found(kind, saved[kind], plugins)
            chosen.append(f"{kind}={quoted(saved[kind]['name'])}")
    rewards = list((saved.get("reward") or {}).values())
    if rewards and "reward" not in given and "task" not in given:
        for node in rewards:
            _found("reward", node, plugins)
        chosen.append(f"reward=[{','.join(quoted(node['name']) for node in rewards)}]")
    return chosen


def _found(kind: str, node: Raw, plugins: Sequence[str]) -> None:
    """Register a part that the plugins hold by its name alone."""
    held = next((value for value in flat(node).values() if is_object(value)), None)
    if held is not None:
        raise UserError(
            f"the run was given its {kind} as an {held.partition(' sha256')[0]} in memory: choose "
            f"one here, {kind}=<name>, or evaluate from Python, with run.evaluate()"
        )
    register_from_plugins(kind, node["name"], plugins)


def with_saved(
    raw: Raw, saved: Raw, overrides: Sequence[str], *, episodes: bool = True
) -> dict[str, Any]:
    """A composed configuration with a run's own values where the user gave none.

    `raw` was composed with `choices`. A setting that the run did not know keeps its default. How
    many problems are evaluated is the run's choice for its own problems alone. Responses have the
    run's environment and tools only with `episodes`.
    """
    given = [key_of(override) for override in overrides]
    left = [*LEFT, *given]
    if any(covers("task", key) for key in given):
        left.append("eval.problems")
    if "task" in given:
        left += ["reward", "eval.task", "eval.reward"]
    out = dict(raw)
    for section, keys in KEPT.items():
        known = saved.get(section)
        if isinstance(known, Mapping) and keys is not None:
            known = {key: known[key] for key in keys if key in known}
        if known is not None and section in raw:
            out[section] = _overlaid(raw[section], known, section, left)
    for section in EPISODES if episodes else ():
        if saved.get(section) is not None:
            out[section] = _overlaid(raw.get(section), saved[section], section, left)
    return out


def _overlaid(new: Any, saved: Any, place: str, left: Sequence[str]) -> Any:
    """`saved` in place of `new`, but for what is left; only keys that `new` has."""
    if any(covers(name, place) for name in left):
        return new
    if not (isinstance(new, Mapping) and new and isinstance(saved, Mapping)):
        return saved
    return {
        key: _overlaid(value, saved[key], f"{place}.{key}", left) if key in saved else value
        for key, value in new.items()
    }


def same_task(raw: Raw, saved: Raw) -> bool:
    """Whether an evaluation's task is the run's.

    A setting that the run did not know, because it is newer, counts as its default.
    """
    ours, theirs = raw["task"], saved["task"]
    known = catalog().parts["task"]
    defaults = known[ours["name"]].node if ours["name"] in known else {}
    return bool(_overlaid({**ours, **defaults}, theirs, "task", ()) == {**defaults, **ours})


def same_problems(raw: Raw, saved: Raw | None) -> bool:
    """Whether an evaluation is of the problems that a run held out of its training."""
    if saved is None or not same_task(raw, saved):
        return False
    ours, theirs = raw["eval"]["task"], saved["eval"].get("task")
    return bool(_overlaid(ours, theirs, "eval.task", ()) == ours)
