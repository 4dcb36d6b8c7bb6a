"""Hydra's, OmegaConf's and pydantic's errors as one line in the user's words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel

from rlkit.compose import LISTS, SINGLE
from rlkit.config import RunConfig
from rlkit.errors import UserError, suggest
from rlkit.hydra_groups import configs_folder
from rlkit.registry import KINDS, entry, names

MAPPED = (UserError, HydraException, OmegaConfBaseException)


def known_keys() -> list[str]:
    """Every key an override can name."""
    return sorted({*_model_keys(RunConfig, ""), *_part_keys(), *KINDS, "algorithm", "experiment"})


def _model_keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _model_keys(field.annotation, f"{prefix}{name}.")


def _part_keys() -> Iterator[str]:
    for kind in (*SINGLE, *LISTS):
        for name in names(kind):
            section = f"{kind}.{name}" if kind in LISTS else kind
            yield from (f"{section}.{field}" for field in entry(kind, name).config.model_fields)


def one_line(error: BaseException) -> str:
    """What is wrong, what is known, and what was probably meant."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return f"the override '{error.override}' cannot be read: {_first_line(error)}"
    text = "\n".join(str(e) for e in _chain(error))
    unknown = re.search(r"full_key: (\S+)", text) or re.search(
        r"Could not override '([^']+)'", text
    )
    if "is not in struct" in text and unknown:
        return unknown_key(unknown[1])
    group = re.search(r"Could not override '([^']+)'\.?\s*No match in the defaults list", text)
    if group:
        return unknown_key(group[1].partition("@")[0])
    return _first_line(error)


def unknown_key(key: str) -> str:
    """The message for a key that nothing reads."""
    known = known_keys()
    section = key.rpartition(".")[0]
    beside = [k.rpartition(".")[2] for k in known if section and k.rpartition(".")[0] == section]
    listed = f" Keys of {section}: {', '.join(sorted(set(beside)))}" if beside else ""
    return f"unknown key {key}.{suggest(key, known)}{listed}"


def _missing_option(error: MissingConfigException) -> str:
    missing = error.missing_cfg_file or ""
    group, _, option = missing.rpartition("/")
    if not group:
        return _first_line(error)
    files = {path.stem for path in (configs_folder() / group).glob("*.yaml")}
    known = sorted(files | set(names(group) if group in KINDS else ()))
    return (
        f"there is no {group} called '{option}'.{suggest(option, known)} Known: {', '.join(known)}"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
