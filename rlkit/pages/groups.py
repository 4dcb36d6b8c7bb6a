"""Which runs are repetitions of each other: those whose settings differ in the seed alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlkit.config.overrides import key_of
from rlkit.runs.records import RunRecords

SEEDS = ("seed", "model.base_seed")
"""What tells repetitions apart."""
ASIDE = (
    *("output_dir", "resume", "resume_force", "dry_run"),
    *("tracker", "checkpoint", "completions", "hydra"),
)
"""Settings, or sections of them, that change nothing of what is learned."""
UNNAMED = "defaults"
LONGEST = 3
"""How many settings a label names where they do not have to tell groups apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGroup:
    """Runs of the same settings, one for each seed."""

    label: str
    """What differs from the other groups, as overrides."""
    runs: Mapping[str, RunRecords]
    """By seed."""


def grouped(runs: Sequence[RunRecords]) -> tuple[list[RunGroup], list[str]]:
    """The groups in the order of their first runs, and what a reader should know about them.

    Of several runs of a group with the same seed the one that got furthest is kept, and of equals
    the last: a repetition of a seed is no independent observation.
    """
    found: dict[object, list[RunRecords]] = {}
    for run in runs:
        found.setdefault(_identity(run), []).append(run)
    members = list(found.values())
    labels, notes = _labels([group[0] for group in members]), []
    groups = []
    for label, group in zip(labels, members, strict=True):
        kept: dict[str, RunRecords] = {}
        for run in sorted(group, key=_last_step):
            kept[seed_of(run)] = run
        if left := [str(run.path) for run in group if run not in kept.values()]:
            notes.append(f"{label}: the same seed again, left out: {', '.join(left)}")
        if changed := _changed_parts(kept.values()):
            notes.append(f"{label}: the source of {', '.join(changed)} changed between its runs")
        groups.append(RunGroup(label=label, runs={s: kept[s] for s in sorted(kept, key=_number)}))
    return groups, notes


def seed_of(run: RunRecords) -> str:
    """The seed of a run; with the seed of its embedded model, if that is another one."""
    flat = flattened(run.config) or overrides_of(run)
    seed, base = (str(flat.get(key, 0)) for key in SEEDS)
    return seed if base in ("0", seed) else f"{seed}/{base}"


def overrides_of(run: RunRecords) -> dict[str, str]:
    """What was set on the command line, by key; the last of several holds."""
    return {
        key_of(line): line.partition("=")[2]
        for line in run.overrides
        if "=" in line and not line.startswith("--")
    }


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            out |= flattened(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _counts(key: str) -> bool:
    return key not in SEEDS and key.partition(".")[0] not in ASIDE


def _identity(run: RunRecords) -> object:
    """What repetitions have in common: their settings, or without a record of those, overrides."""
    settings = flattened(run.config) or overrides_of(run)
    return frozenset((key, repr(value)) for key, value in settings.items() if _counts(key))


def _changed_parts(runs: Iterable[RunRecords]) -> list[str]:
    """The parts whose source is not the same in all runs."""
    sources: dict[str, set[object]] = {}
    for run in runs:
        for section, part in run.components.items():
            sources.setdefault(section, set()).add(part.get("source_sha256"))
    return [section for section, found in sources.items() if len(found) > 1]


def _last_step(run: RunRecords) -> float:
    return max(float(record.get("step", 0)) for record in run.records)


def _number(seed: str) -> tuple[int, str]:
    first = seed.partition("/")[0]
    return (int(first) if first.isdigit() else -1, seed)


def _labels(runs: Sequence[RunRecords]) -> list[str]:
    """What tells each of these runs from the others."""
    given = [overrides_of(run) for run in runs]
    settings = [flattened(run.config) for run in runs]
    keys = [key for key in dict.fromkeys(k for each in given for k in each) if _counts(key)]
    whole = [
        {key: own.get(key, own.get(f"{key}.name", said.get(key))) for key in keys}
        for own, said in zip(settings, given, strict=True)
    ]
    if len(runs) == 1:
        return [_joined(whole[0])]
    differing = [key for key in keys if len({str(each[key]) for each in whole}) > 1]
    labels = [
        _joined({k: each[k] for k in differing if each[k] is not None or k in own}, len(keys))
        for each, own in zip(whole, settings, strict=True)
    ]
    told = [
        label if labels.count(label) == 1 else _told_apart(label, own, settings)
        for label, own in zip(labels, settings, strict=True)
    ]
    return [
        label if label not in told[:place] else f"{label} [{place + 1}]"
        for place, label in enumerate(told)
    ]


def _told_apart(label: str, own: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """A label with settings that were not given as overrides, but differ."""
    differing = [
        key for key in own if _counts(key) and len({repr(each.get(key)) for each in others}) > 1
    ]
    return f"{label} ({_joined({key: own[key] for key in differing})})"


def _joined(settings: Mapping[str, Any], longest: int = LONGEST) -> str:
    shown = " ".join(f"{key}={_plain(settings[key])}" for key in list(settings)[:longest])
    more = f" and {len(settings) - longest} more" if len(settings) > longest else ""
    return f"{shown}{more}" or UNNAMED


def _plain(value: Any) -> str:
    return "null" if value is None else str(value)
