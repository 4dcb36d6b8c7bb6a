"""Values of episodes that live in other processes: a reward's view of them, and what crosses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rlkit.errors import UserError


class Asked(Protocol):
    """What answers questions about an episode's object."""

    def asked(self, episode: int, do: str, what: str, **arguments: Any) -> Any:
        """The reply; None if the object was lost."""
        ...


class Handle:
    """An episode's environment for a reward function, as in TRL: `environments[i].counter`.

    Attributes are read, and methods called, in the episode's process; they must be JSON values.
    """

    def __init__(self, environment: Asked, episode: int) -> None:
        self._environment = environment
        self._episode = episode

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        reply = self._asked(name, None)
        if not isinstance(reply, dict) or not reply.keys() & {"method", "value"}:
            return None  # lost, or what a model's code wrote in the place of its process
        return self._method(name) if "method" in reply else reply["value"]

    def _method(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            return self._asked(name, arguments)

        return call

    def _asked(self, name: str, arguments: Sequence[Any] | None) -> Any:
        return self._environment.asked(
            self._episode, "attribute", f"`{name}`", name=name, arguments=arguments
        )


def as_state(value: Any) -> str | None:
    """A state as text: equal values are equal texts."""
    return None if value is None else json.dumps(value, sort_keys=True)


def as_number(value: Any, what: str) -> float | None:
    """A finite number, or None. Raises UserError naming `what` for anything else."""
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{what} is {value!r}; give a finite number or None")
    return float(value)


def as_json(value: Any, what: str) -> Any:
    """A value that JSON can hold. Raises UserError naming `what` if it cannot."""

    def plain(other: Any) -> Any:
        for method in ("tolist", "isoformat"):
            if hasattr(other, method):
                return getattr(other, method)()
        raise TypeError(type(other).__name__)

    try:
        return json.loads(json.dumps(value, default=plain))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{what} cannot be handed to its process: {' '.join(str(error).split())}; use numbers, "
            "texts, lists and dicts"
        ) from None
