"""Parts that hold state and return none are found before a checkpoint would lose it.

A part without a `state_dict` of its own is compared with what it was when the run began: an
attribute that has changed since is state, unless the part lists it in `caches`. Of a user's
subclass that leaves `state_dict` to a part of rlkit's, the attributes that it adds are. Compared
are plain values, collections of them, tensors, arrays, generators, and objects of dataclasses and
of the classes in the part's own module; any other object is only compared by its identity.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from functools import cached_property
from inspect import get_annotations, getattr_static, isabstract
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlkit.errors import UserError
from rlkit.interfaces import Part

OURS = ("rlkit", "algorithms", "buffers", "anchors", "schedules")
"""The packages of this distribution."""
GIVEN = frozenset({"config", "context"})
"""Attributes that the run sets itself."""


class HeldState:
    """What parts without a `state_dict` held when the run began."""

    def __init__(self, parts: Mapping[str, Part[Any]]) -> None:
        self.kept = {name: kept_by_base(part) for name, part in parts.items()}
        self.parts = {n: part for n, part in parts.items() if self.kept[n] is not None}
        self.before = {name: self._attributes(name) for name in self.parts}

    def check(self) -> None:
        """Raise UserError for a part that now holds anything else."""
        if (lost := self.lost()) is not None:
            raise UserError(lost)

    def lost(self) -> str | None:
        """What a checkpoint would lose of a part that now holds anything else; None = nothing."""
        for name, part in self.parts.items():
            before, now = self.before[name], self._attributes(name)
            changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
            if changed:
                cls, base = type(part).__name__, owner_of(part).__name__
                its = "" if base == "Part" else f" of its own (it has {base}'s)"
                return (
                    f"{name} ({cls}) has changed its attribute '{changed[0]}' "
                    f"during the run, but has no state_dict{its}, so that a resumed run would "
                    "begin without it: return it from state_dict and take it back in "
                    "load_state_dict (an anchor: in restore), "
                    f'or declare caches = ("{changed[0]}",) if no later step depends on it'
                )
        return None

    def _attributes(self, name: str) -> dict[str, Any]:
        return attributes(self.parts[name], self.kept[name] or ())


def owner_of(part: Part[Any]) -> type[Any]:
    """The class that defines the part's `state_dict`."""
    return next(cls for cls in type(part).__mro__ if "state_dict" in vars(cls))


def kept_by_base(part: Part[Any]) -> frozenset[str] | None:
    """The attributes that a `state_dict` of rlkit's answers for; None = the part answers for all.

    A base answers for those that it makes or declares.
    """
    if type(part).state_dict is Part.state_dict:
        return frozenset()
    base = next(cls for cls in type(part).__mro__ if is_ours(cls))
    if base is type(part) or not is_ours(owner_of(part)) or isabstract(base):
        return None
    return frozenset({*vars(base(part.config)), *dir(base), *get_annotations(base)})


def is_ours(cls: type[Any]) -> bool:
    """Whether a class is one of this distribution's."""
    return cls.__module__.partition(".")[0] in OURS


def attributes(part: Part[Any], kept: Collection[str] = ()) -> dict[str, Any]:
    """A fingerprint of each attribute that may be state.

    One in a method's place is a wrapper, and a cached property follows from the others.
    """
    left_out, own = {*GIVEN, *part.caches, *kept}, type(part).__module__
    return {
        name: fingerprint(value, own)
        for name, value in vars(part).items()
        if name not in left_out and not is_no_state(getattr_static(type(part), name, None))
    }


def is_no_state(declared: object) -> bool:
    """Whether what the class has under an attribute's name says that it is none."""
    return callable(declared) or isinstance(declared, cached_property)


def fingerprint(value: Any, module: str, inside: Collection[int] = ()) -> Any:
    """Something equal exactly as long as the value is, which keeps no reference to it.

    Objects of classes in `module` are seen into; `inside` are the ids of what the value is part of.
    """
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if id(value) in inside:
        return "itself"
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        return (
            str(value.dtype),
            tuple(value.shape),
            zlib.crc32(flat.view(torch.uint8).numpy().tobytes()),
        )
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, zlib.crc32(np.ascontiguousarray(value).tobytes()))
    within = (*inside, id(value))
    found = contents(value, module)
    if found is None:
        return (type(value).__qualname__, id(value))
    return (type(value).__qualname__, tuple(fingerprint(each, module, within) for each in found))


def contents(value: Any, module: str) -> list[Any] | None:
    """What makes a value equal to another; None = only its identity does."""
    if isinstance(value, Mapping):
        return [each for pair in value.items() for each in pair]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, Collection) and not isinstance(value, type):
        return list(value)
    if isinstance(value, np.random.Generator):
        return [value.bit_generator.state]
    if isinstance(value, random.Random):
        return [value.getstate()]
    if isinstance(value, torch.Generator):
        return [value.get_state()]
    if not isinstance(value, type) and (type(value).__module__ == module or is_dataclass(value)):
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
        held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        return [held | getattr(value, "__dict__", {})]
    return None
