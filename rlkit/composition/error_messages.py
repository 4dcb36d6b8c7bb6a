"""Hydra's and OmegaConf's errors as one line in the user's words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rlkit.composition.catalog_file import catalog
from rlkit.composition.config_files import GROUPS, configs_folder, files_of, options
from rlkit.composition.other_words import USUAL, in_our_words
from rlkit.config.validation import how_to_list
from rlkit.errors import NEAREST, known_names, suggest
from rlkit.plugins import KINDS, LIST_KINDS, OPTIONAL_KINDS, SINGLE_KINDS, unknown_name

MAPPED = (HydraException, OmegaConfBaseException, YAMLError)
"""The errors that `one_line` puts in words: mistakes that Hydra finds."""
SEARCHED = re.compile(r"path=file://(.+)$", re.MULTILINE)
"""The folders that Hydra says it searched."""
PLUGINS = {
    "hydra/launcher": {
        "submitit_local": "submitit",
        "submitit_slurm": "submitit",
        "ray_aws": "ray",
    },
    "hydra/sweeper": {"ng": "nevergrad"},
}
"""Groups whose options come with packages, hydra-<option>-launcher, and what is named otherwise."""


NEAR = 0.7
"""How alike an unknown key and one of all keys must be, 1 = equal, to be what was meant."""
HELP = "`rlkit train --help`"
"""What lists the keys of a run."""
ONE = (*SINGLE_KINDS, *OPTIONAL_KINDS)
"""Kinds whose part has a section of its own."""


def known_keys() -> list[str]:
    """Every key an override can name."""
    return sorted({*catalog().run_keys(), *_part_keys(), *GROUPS})


def _part_keys() -> Iterator[str]:
    for kind in KINDS:
        for part in catalog().parts[kind].values():
            yield from (f"{part.section}.{setting.name}" for setting in part.settings)


def one_line(error: BaseException, arguments: Sequence[str] = ()) -> str:
    """What is wrong, what is known, and what was probably meant.

    `arguments` are those that were composed, from which a chosen part is known.
    """
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(str(error.override))
    if isinstance(error, YAMLError):
        return f"a configuration file is not YAML: {' '.join(str(error).split())}"
    text = "\n".join(str(e) for e in _chain(error))
    if "is not in struct" in text:
        found = re.findall(r"full_key: (\S+)|Could not override '([^']+)'", text)
        return unknown_key(max(("".join(groups) for groups in found), key=len), arguments)
    for pattern, message in REWORDED.items():
        match = re.search(pattern, text)
        if match:
            return match.expand(message)
    group = re.search(r"Could not override '([^']+)'\.?\s*No match in the defaults list", text)
    if group:
        return unknown_key(group[1].partition("@")[0])
    return _first_line(error)


REWORDED = {
    r"In '([^']+)': Could not override '\w+@[\w.]+'": (
        r"\1.yaml chooses parts of the whole run: begin it with the line `# @package _global_`"
    ),
    r"Multiple values for (\w+)\. To override a value use 'override \w+: (\S+)'": (
        r"\1 is already chosen: write \1=\2, without +"
    ),
    r"Ambiguous value for argument '([^'=]+)=([^']*)'": (
        r"\1=\2 has several values: put brackets around a list, or -m first to run each value"
    ),
    r"Error merging override (\S+)\n.*\n\s*full_key: (\S+)\n\s*object_type=list": (
        r"\1 is not valid: \2 must be a list, such as \2=[a,b]"
    ),
    r"Error merging override (\S+)\n.*\n\s*full_key: (\S+)\n\s*object_type=dict": (
        r"\1 is not valid: \2 must be keys and values, such as \2={a:1}"
    ),
}
"""Patterns of Hydra's messages, and the line printed instead."""


def _unreadable(override: str) -> str:
    """The message for an override that Hydra cannot read."""
    if "=" not in override:
        return f"'{override}' is not an override: write {override}=<value>"
    key, _, value = override.partition("=")
    return (
        f"{key}={value} cannot be read: close every bracket, and put quotes around text with "
        "one of = @ : , [ ] { } in it, once more inside those of the shell"
    )


def unknown_key(key: str, arguments: Sequence[str] = ()) -> str:
    """The message for a key that nothing reads."""
    known = known_keys()
    if (hint := in_our_words(key)) is not None and key not in known:
        return hint
    section, _, field = key.rpartition(".")
    kind, _, name = section.partition(".")
    if key == "experiment":
        return "experiment needs a plus: +experiment=<name>"
    if section in known and kind in ONE and name:
        return f"{key} is not set yet: write +{key}=<value>"
    if key in known and kind in LIST_KINDS:
        return f"{key} needs its part: {kind}=[{name}]"
    if key in known and kind in ONE:
        return _of_another_part(kind, field, arguments)
    if kind in ONE and field and (chosen := chosen_part(kind, arguments)):
        own = [setting.name for setting in catalog().parts[kind][chosen].settings]
        listed = known_names(field, sorted(own), how_to_list(kind, chosen))
        near = _near_setting(kind, chosen, field)
        return f"unknown key {key}: {kind}={chosen} has no such setting.{near} {listed}"
    return _nearest_key(key, known)


def _of_another_part(kind: str, field: str, arguments: Sequence[str]) -> str:
    """The message for a setting that other parts of the kind have."""
    parts = catalog().parts[kind].values()
    owners = [p.name for p in parts if any(field == each.name for each in p.settings)]
    theirs = f"belongs to {_first_few(kind, owners)}"
    if kind in OPTIONAL_KINDS and not any(a.startswith(f"{kind}=") for a in arguments):
        return f"this run has no {kind}: '{field}' {theirs}"
    near = _near_setting(kind, chosen_part(kind, arguments), field)
    there = f".{near} '{field}'" if near else ": it"
    hint = None if field in USUAL else in_our_words(field)
    more = f". {hint}" if hint is not None and not near else ""
    return f"this run's {kind} has no '{field}'{there} {theirs}{more}"


def _near_setting(kind: str, chosen: str | None, field: str) -> str:
    """Return " Did you mean 'task.prompt_column'?" if the chosen part has a setting like it."""
    parts = catalog().parts[kind]
    own = [setting.name for setting in parts[chosen].settings] if chosen else []
    return suggest(field, own).replace("'", f"'{kind}.", 1)


def chosen_part(kind: str, arguments: Sequence[str]) -> str | None:
    """The part of a kind that these arguments choose; None if that cannot be told."""
    choices = [a for a in arguments if a.partition("=")[0].lstrip("+") in GROUPS]
    if not arguments or GlobalHydra.instance().is_initialized():
        return None
    try:
        with initialize_config_dir(version_base=None, config_dir=str(configs_folder())):
            name = hydra_compose("config", overrides=choices)[kind].name
    except MAPPED:
        return None
    return name if name in catalog().parts[kind] else None


def _first_few(kind: str, owners: Sequence[str]) -> str:
    """Parts by name, as many as fit on a line: "loss=ppo, loss=grpo and 4 more"."""
    shown = ", ".join(f"{kind}={name}" for name in owners[:NEAREST])
    rest = len(owners) - NEAREST
    return f"{shown} and {rest} more" if rest > 0 else shown


def _nearest_key(key: str, known: Sequence[str]) -> str:
    """Suggestions from the key's own section, else from the run's sections by its last word."""
    section, _, field = key.rpartition(".")
    beside = [k.rpartition(".")[2] for k in known if section and k.rpartition(".")[0] == section]
    if beside:
        near = suggest(field, beside).replace("'", f"'{section}.", 1)
        listed = known_names(field, sorted(set(beside)), how_to_list(section))
        return f"unknown key {key}.{near} {listed}"
    kind, _, name = section.partition(".")
    if kind in LIST_KINDS and name in catalog().names(kind):
        return f"unknown key {key}: {section} has no keys"
    if kind in LIST_KINDS and name:
        own = "; a task's own reward has no settings" if kind == "reward" else ""
        return f"unknown key {key}: {unknown_name(kind, name, catalog().names(kind))}{own}"
    if name:
        return _nearest_key(section, known)
    elsewhere = [k for k in catalog().run_keys() if k.endswith(f".{field}")]
    if elsewhere:
        return f"unknown key {key}. Did you mean '{elsewhere[0]}'?"
    top = [k for k in known if "." not in k]
    return f"unknown key {key}.{suggest(key, known, NEAR)} {known_names(key, top, HELP)}"


def _missing_option(error: MissingConfigException) -> str:
    missing = error.missing_cfg_file or ""
    group, _, option = missing.rpartition("/")
    if not group:
        return _first_line(error)
    folders = [Path(found) for found in SEARCHED.findall(str(error))]
    if group in PLUGINS:
        package = PLUGINS[group].get(option, option)
        what = group.partition("/")[2]
        return (
            f"{group}={option} is not installed: pip install hydra-{package}-{what}, or leave "
            f"{group} out"
        )
    if group in GROUPS:
        return str(unknown_name(group, option, options(group, folders)))
    known = sorted(files_of(group, folders))
    return (
        f"there is no {group} called '{option}'.{suggest(option, known)} "
        f"{known_names(option, known, str(configs_folder() / group))}"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
